// A client in another language, its stubs made from the contracts at run time: uploads, watches, searches, chats.
// Usage: node main.js TARGET DESCRIPTOR_SET; prints one JSON object.
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [target, descriptors] = process.argv.slice(2);
const definition = loader.loadFileDescriptorSetFromBuffer(readFileSync(descriptors), {
  keepCase: true,
  longs: String,
  enums: String,
  oneofs: true,
});
const { ingestion, retrieval, agent } = grpc.loadPackageDefinition(definition).loremesh;
const connect = (Service) => new Service(target, grpc.credentials.createInsecure());
const deadline = (seconds) => ({ deadline: Date.now() + seconds * 1000 });

const documents = connect(ingestion.v1.DocumentService);
const searches = connect(retrieval.v1.RetrievalService);
const chats = connect(agent.v1.ChatService);

function unary(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, deadline(30), (error, response) => (error ? reject(error) : resolve(response)));
  });
}

function upload(text) {
  return new Promise((resolve, reject) => {
    const call = documents.UploadDocument(deadline(30), (error, response) => (error ? reject(error) : resolve(response)));
    const bytes = Buffer.from(text);
    call.write({ file: { content_type: "text/plain", data: bytes.subarray(0, 10) }, title: "From Node" });
    call.write({ file: { data: bytes.subarray(10) } });
    call.end();
  });
}

async function payloads(call) {
  const kinds = [];
  for await (const event of call) kinds.push(event.payload);
  return kinds;
}

async function refusal() {
  try {
    await unary(searches, "Search", { query: "a", top_k: 0 });
  } catch (error) {
    return { code: error.code, details: error.details, has_status: error.metadata.get("grpc-status-details-bin").length > 0 };
  }
}

const document = await upload("Narwhals have one long tusk. ✓");
const watched = await payloads(documents.WatchDocument({ document_id: document.id }, deadline(60)));
const found = await unary(searches, "Search", { query: "narwhal tusk", top_k: 20 });
const chat = await payloads(chats.StreamChat({ message: "How many tusks do narwhals have?", max_output_tokens: 32 }, deadline(120)));
console.log(
  JSON.stringify({
    document,
    watched: watched.at(-1),
    found: found.results.map((result) => result.document_id),
    chat: { first: chat[0], last: chat.at(-1) },
    refusal: await refusal(),
  }),
);
