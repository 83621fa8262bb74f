"""Retrieval quality on Cranfield: nDCG@10 of the default search and of its parts."""

import grpc
from loremesh.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc

from tests.bench import cranfield, measure
from tests.bench.mesh import Mesh

MODES = {
    "default": retrieval_pb2.SEARCH_MODE_UNSPECIFIED,
    "dense": retrieval_pb2.SEARCH_MODE_DENSE,
    "sparse": retrieval_pb2.SEARCH_MODE_SPARSE,
}


def ranking(mesh: Mesh, found: dict[str, str]) -> None:
    """Print nDCG@10 per mode; `found` maps document ids to Cranfield ids."""
    questions, judged = cranfield.questions(), cranfield.judgements()
    with grpc.insecure_channel(f"127.0.0.1:{mesh.port}") as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)
        for name, mode in MODES.items():
            scores = []
            for question in questions:
                request = retrieval_pb2.SearchRequest(query=question.text, top_k=30, mode=mode)
                answer = stub.Search(request, timeout=30)
                documents = [found[result.document_id] for result in answer.results]
                scores.append(cranfield.ndcg(documents, judged.get(question.id, {})))
            mean = sum(scores) / len(scores)
            floor = 0.55 if name == "default" else 0.0
            target = f">= {floor:.2f}" if floor else "-"
            measure.row(f"nDCG@10 on Cranfield, {name} search", f"{mean:.3f}", target, met=mean >= floor)
