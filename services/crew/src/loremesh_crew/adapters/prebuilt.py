"""The crews and flows that come with the service."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any

import yaml
from google.protobuf.json_format import ParseDict
from loremesh.crew.v1 import crew_pb2, flow_pb2

from loremesh_crew import prebuilt
from loremesh_crew.crew_protos import read_crew
from loremesh_crew.domain.definitions import Crew, Flow
from loremesh_crew.flow_protos import read_flow


def load() -> tuple[Mapping[str, Crew], Mapping[str, Flow]]:
    """All of them, by their ids; raises ValueError where a file holds something else."""
    crews: dict[str, Crew] = {}
    flows: dict[str, Flow] = {}
    for fields in _documents():
        match fields:
            case {"crew": kept}:
                crew = replace(read_crew(ParseDict(kept, crew_pb2.Crew())), built_in=True)
                crews[crew.id] = crew
            case {"flow": kept}:
                flow = replace(read_flow(ParseDict(kept, flow_pb2.Flow())), built_in=True)
                flows[flow.id] = flow
            case _:
                raise ValueError("a document among those built in is neither a crew nor a flow")
    return crews, flows


def _documents() -> list[Any]:
    paths = sorted(each.name for each in files(prebuilt).iterdir() if each.name.endswith(".yaml"))
    return [document for name in paths for document in yaml.safe_load_all((files(prebuilt) / name).read_text("utf-8"))]
