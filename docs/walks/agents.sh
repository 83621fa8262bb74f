#!/bin/sh
# Walks through agents on a running mesh, as docs/agents.md tells it, and fails where something is not as told there.
# Usage: docs/walks/agents.sh   (scripts/up before; LOREMESH_URL and LOREMESH_HOME name another mesh)
set -eu
cd "$(dirname "$0")/../.."
. scripts/env
if [ -z "${LOREMESH_URL:-}" ]; then
    LOREMESH_URL=$(loremesh status --json | python -c 'import json, sys; print(json.load(sys.stdin)["url"])')
fi
export LOREMESH_URL
work=$(mktemp -d)
name=walk-$(date +%s)
trap 'tidy' EXIT
trap 'exit 1' INT TERM

tidy() {
    for agent in "$name" "$name-asks" "$name-saves"; do
        curl -s -o "$work/gone" -X DELETE "$LOREMESH_URL/api/v1/agents/$agent" || true
    done
    curl -s -o "$work/gone" -X DELETE "$LOREMESH_URL/api/v1/vector_stores/$name?force=true" || true
    rm -r "$work"
}

chapter() { printf '\n== %s\n' "$*"; }

fail() {
    printf '\nFAILED: %s\n' "$1" >&2
    [ -z "${2:-}" ] || cat "$2" >&2
    exit 1
}

# rest METHOD PATH [JSON]: the answer; fails when the mesh refuses.
rest() {
    printf '$ curl -X %s %s%s %s\n' "$1" "$LOREMESH_URL" "$2" "${3:+-d '$3'}" >&2
    curl -sS --fail-with-body -N -X "$1" "$LOREMESH_URL$2" -H 'content-type: application/json' ${3:+-d "$3"} ||
        fail "the mesh refused $1 $2"
}

# grpc SERVICE/METHOD JSON: the same over gRPC, by what the mesh says of itself (reflection).
grpc() {
    printf "\$ buf curl --protocol grpc %s/loremesh.agent.v1.%s -d '%s'\n" "$LOREMESH_URL" "$1" "$2" >&2
    buf curl --protocol grpc --http2-prior-knowledge "$LOREMESH_URL/loremesh.agent.v1.$1" -d "$2" ||
        fail "the mesh refused $1"
}

# field PATH: what is there in the JSON of standard input.
field() {
    python -c '
import json, sys
value = json.load(sys.stdin)
for step in sys.argv[1].split("."):
    value = value[int(step)] if step.isdigit() else value.get(step, "")
print(value)' "$1"
}

# events: a line for each event of a stream: its number, its kind, and what matters of it. REST and gRPC print alike.
events() {
    python -u -c '
import json, re, sys

def snake(value):
    if isinstance(value, dict):
        return {re.sub("([A-Z])", lambda m: "_" + m[1].lower(), k): snake(v) for k, v in value.items()}
    return [snake(each) for each in value] if isinstance(value, list) else value

def detail(kind, told):
    tail = lambda name: told.get(name, "").rpartition("_")[2]
    if kind == "sources":
        return ", ".join(each["title"] for each in told.get("sources", ()))
    if kind == "tool_call":
        return told["name"] + " " + json.dumps(told.get("arguments", {}))
    if kind == "tool_result":
        return told["name"] + " " + tail("outcome") + " " + " ".join(told.get("content", "").split())[:60]
    if kind == "usage":
        return "{} tokens read, {} written".format(told.get("input_tokens", 0), told.get("output_tokens", 0))
    if kind == "incomplete":
        return tail("reason") + " " + told.get("limit", "")
    if kind == "failed":
        return told["reason"]
    return told.get("response") or told.get("approval_id") or ""

def show(event):
    event = snake(event)
    (kind,) = event.keys() - {"run_id", "seq", "time", "path", "attempt"}
    if kind not in ("heartbeat", "text_start", "text_delta", "text_finish", "citation"):
        print(event["seq"], kind, detail(kind, event[kind]), flush=True)

text, decoder = "", json.JSONDecoder()
for line in sys.stdin:
    if not line.startswith(("id:", ":", "event:")):
        text += line.removeprefix("data:")
    while text.strip():
        try:
            event, end = decoder.raw_decode(text.lstrip())
        except ValueError:
            break
        text = text.lstrip()[end:]
        show(event)
'
}

# shows PATTERN FILE WHAT: fails unless a line fits.
shows() { grep -Eq "$1" "$2" || fail "expected $3 in" "$2"; }

# once PATTERN FILE WHAT: fails unless exactly one line fits.
once() { [ "$(grep -Ec "$1" "$2")" = 1 ] || fail "expected exactly one $3 in" "$2"; }

# soon WHAT COMMAND...: waits until a command succeeds.
soon() {
    what=$1
    shift
    end=$(($(date +%s) + 90))
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || fail "waited in vain until $what"
        sleep 0.2
    done
}

agent_pid() {
    loremesh status --json |
        python -c 'import json, sys; print(*[p["pid"] for p in json.load(sys.stdin)["processes"] if p["name"] == "agent"])'
}
is() { [ "$(curl -s "$LOREMESH_URL$1" | field "$2")" = "$3" ]; }
ends() { shows "^[0-9]+ completed " "$1" "the event completed"; }

chapter "A document to search"
rest POST /api/v1/vector_stores "{\"id\": \"$name\", \"display_name\": \"Walk\"}" >"$work/store"
document=$(rest POST /api/v1/documents "{\"title\": \"Lighthouses\", \"vector_store_id\": \"$name\", \"content\": \"The lighthouse of Genoa, called the Lanterna, was built in 1543 and is 77 metres high.\"}" | field id)
soon "the document can be searched" is "/api/v1/documents/$document" state DOCUMENT_STATE_READY

chapter "An agent with tools"
rest POST /api/v1/agents "{\"id\": \"$name\", \"vector_store_ids\": [\"$name\"], \"temperature\": 0, \"tools\": [{\"name\": \"search\"}, {\"name\": \"calculator\"}]}" >"$work/agent"
grpc AgentService/GetAgent "{\"agentId\": \"$name\"}" | field revision | grep -qx 1 || fail "the agent has no first revision"

# A model of 135M parameters is led by the hand: it does what it is shown. Others need the question alone.
question='How high are two lighthouses of Genoa? Search {"tool": "search", "arguments": {"query": "lighthouse of Genoa"}}, calculate {"tool": "calculator", "arguments": {"expression": "77 * 2"}}'
ask=$(python -c 'import json, sys; print(json.dumps({"agent_id": sys.argv[1], "message": sys.argv[2]}))' "$name" "$question")

chapter "A question that takes search and arithmetic"
for way in rest grpc; do
    case $way in
    rest) rest POST /api/v1/chat/stream "$ask" | events | tee "$work/asked" ;;
    grpc) grpc ChatService/StreamChat "$ask" | events | tee "$work/asked" ;;
    esac
    shows '^[0-9]+ tool_result search OK .*Lighthouses' "$work/asked" "a passage that search found"
    shows '^[0-9]+ tool_result calculator OK 154' "$work/asked" "what the calculator said"
    ends "$work/asked"
done

chapter "The agent service dies amid a run"
job=$(rest POST /api/v1/chat/async "$ask" | field job_id)
begun() { curl -s "$LOREMESH_URL/api/v1/chat/jobs/$job/history" | grep -q '"tool_call":'; }
soon "the run calls a tool" begun
pid=$(agent_pid)
[ -n "$pid" ] || fail "no agent service runs here: set LOREMESH_HOME to the data directory of the mesh"
echo "\$ kill -9 $pid"
kill -9 "$pid"
another() { now=$(agent_pid) && [ -n "$now" ] && [ "$now" != "$pid" ]; }
soon "the agent service is started again" another
soon "the agent service answers again" is "/api/v1/chat/jobs/$job" job_id "$job"
rest GET "/api/v1/chat/jobs/$job/events" | events | tee "$work/crashed"
ends "$work/crashed"
once '^[0-9]+ (completed|incomplete|failed|cancelled)' "$work/crashed" "terminal event"
grpc ChatJobService/WatchChatJob "{\"jobId\": \"$job\"}" | events >"$work/again"
cmp -s "$work/crashed" "$work/again" || fail "gRPC tells it otherwise:" "$work/again"
grpc ChatJobService/GetChatJob "{\"jobId\": \"$job\"}" | field attempt | grep -qx 2 ||
    fail "the job was not taken up by another worker"
rest GET "/api/v1/chat/jobs/$job/steps" >"$work/steps"
python - "$work/steps" <<'PYTHON' || fail "a step was done twice, or not at all"
import json, sys
steps = json.load(open(sys.argv[1]))["steps"]
print(*(f"step {s['number']}: {s['name']} {s['state'].removeprefix('STEP_STATE_')}" for s in steps), sep="\n")
calls = [s["name"] for s in steps if s["kind"] == "STEP_KIND_TOOL"]
sys.exit(calls != ["search", "calculator"] or any(s["state"] != "STEP_STATE_DONE" for s in steps))
PYTHON

chapter "A call that a human approves"
rest POST /api/v1/agents "{\"id\": \"$name-asks\", \"vector_store_ids\": [\"$name\"], \"temperature\": 0, \"tools\": [{\"name\": \"search\"}, {\"name\": \"calculator\", \"approval\": \"APPROVAL_POLICY_ALWAYS\"}]}" >"$work/agent"
ask_first=$(printf %s "$ask" | sed "s/\"$name\"/\"$name-asks\"/")
for way in rest grpc; do
    job=$(rest POST /api/v1/chat/async "$ask_first" | field job_id)
    soon "the run waits" is "/api/v1/chat/jobs/$job" status CHAT_JOB_STATUS_WAITING
    case $way in
    rest)
        approval=$(rest GET "/api/v1/approvals?run_id=$job" | field approvals.0.id)
        rest POST "/api/v1/approvals/$approval/decide" '{"decision": "DECISION_APPROVE"}' >"$work/decided"
        ;;
    grpc)
        approval=$(grpc ApprovalService/ListApprovals "{\"runId\": \"$job\"}" | field approvals.0.id)
        loremesh approvals approve "$approval" --arguments '{"expression": "77 * 3"}'
        ;;
    esac
    rest GET "/api/v1/chat/jobs/$job/events" | events | tee "$work/approved"
    shows "^[0-9]+ waiting $approval" "$work/approved" "the event waiting"
    shows "^[0-9]+ resumed $approval" "$work/approved" "the event resumed"
    case $way in
    rest) shows '^[0-9]+ tool_result calculator OK 154' "$work/approved" "what the approved call said" ;;
    grpc) shows '^[0-9]+ tool_result calculator OK 231' "$work/approved" "what the call with edited arguments said" ;;
    esac
    ends "$work/approved"
done

chapter "A budget that is spent"
rest POST /api/v1/agents "{\"id\": \"$name-saves\", \"vector_store_ids\": [\"$name\"], \"temperature\": 0, \"tools\": [{\"name\": \"search\"}, {\"name\": \"calculator\"}], \"limits\": {\"max_tool_calls\": 1, \"on_limit\": \"LIMIT_POLICY_STOP\"}}" >"$work/agent"
ask_little=$(printf %s "$ask" | sed "s/\"$name\"/\"$name-saves\"/")
for way in rest grpc; do
    case $way in
    rest) rest POST /api/v1/chat/stream "$ask_little" | events | tee "$work/stopped" ;;
    grpc) grpc ChatService/StreamChat "$ask_little" | events | tee "$work/stopped" ;;
    esac
    shows '^[0-9]+ incomplete LIMIT tool_calls' "$work/stopped" "the end by the limit tool_calls"
    once '^[0-9]+ tool_result' "$work/stopped" "call of a tool"
done

chapter "A stream that is dropped and taken up again"
job=$(rest POST /api/v1/chat/async "$ask" | field job_id)
rest GET "/api/v1/chat/jobs/$job/events" | events >"$work/whole"
seen=$(sed -n 4p "$work/whole" | cut -d' ' -f1)
sed -n '5,$p' "$work/whole" >"$work/rest"
[ -s "$work/rest" ] || fail "there is nothing behind event $seen of" "$work/whole"
echo "events up to $seen were read, then the line was cut"
rest GET "/api/v1/chat/jobs/$job/events?after_seq=$seen" | events | tee "$work/after"
cmp -s "$work/rest" "$work/after" || fail "after_seq did not go on behind $seen:" "$work/after"
echo "\$ curl -H 'last-event-id: $seen' $LOREMESH_URL/api/v1/chat/jobs/$job/events"
curl -sN "$LOREMESH_URL/api/v1/chat/jobs/$job/events" -H "last-event-id: $seen" | events >"$work/after"
cmp -s "$work/rest" "$work/after" || fail "Last-Event-ID did not go on behind $seen:" "$work/after"
grpc ChatJobService/WatchChatJob "{\"jobId\": \"$job\", \"afterSeq\": \"$seen\"}" | events >"$work/after"
cmp -s "$work/rest" "$work/after" || fail "WatchChatJob did not go on behind $seen:" "$work/after"

printf '\nAll of it is as docs/agents.md tells.\n'
