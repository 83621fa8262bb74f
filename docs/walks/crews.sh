#!/bin/sh
# Walks through crews and flows on a running mesh, as docs/crews.md tells it, and fails where something is not as told
# there. It kills the crew service and the agent service once. Takes some minutes with the local model.
# Usage: docs/walks/crews.sh   (scripts/up before; LOREMESH_URL and LOREMESH_HOME name another mesh)
set -eu
cd "$(dirname "$0")/../.."
. scripts/env
if [ -z "${LOREMESH_URL:-}" ]; then
    LOREMESH_URL=$(loremesh status --json | python -c 'import json, sys; print(json.load(sys.stdin)["url"])')
fi
export LOREMESH_URL
# Tables are read by their lines.
COLUMNS=200
export COLUMNS
work=$(mktemp -d)
name=walk-$(date +%s)
trap 'tidy' EXIT
trap 'exit 1' INT TERM

tidy() {
    loremesh crew delete "$name" >"$work/gone" 2>&1 || true
    loremesh flow delete "$name" >"$work/gone" 2>&1 || true
    rm -r "$work"
}

chapter() { printf '\n== %s\n' "$*"; }

fail() {
    printf '\nFAILED: %s\n' "$1" >&2
    [ -z "${2:-}" ] || cat "$2" >&2
    exit 1
}

# mesh ARGUMENT...: the command, shown before it is run.
mesh() {
    printf '$ loremesh %s\n' "$*" >&2
    loremesh "$@"
}

# rest METHOD PATH [JSON]: the answer; fails when the mesh refuses.
rest() {
    printf '$ curl -X %s %s%s %s\n' "$1" "$LOREMESH_URL" "$2" "${3:+-d '$3'}" >&2
    curl -sS --fail-with-body -N -X "$1" "$LOREMESH_URL$2" -H 'content-type: application/json' ${3:+-d "$3"} ||
        fail "the mesh refused $1 $2"
}

# field PATH: what is there in the JSON of standard input.
field() {
    python -c '
import json, sys
value = json.load(sys.stdin)
for step in sys.argv[1].split("."):
    value = value[int(step)] if step.isdigit() else value.get(step, "")
print(value if isinstance(value, str) else json.dumps(value))' "$1"
}

# shows PATTERN FILE WHAT: fails unless a line fits.
shows() { grep -Eq "$1" "$2" || fail "expected $3 in" "$2"; }

# once PATTERN FILE WHAT: fails unless exactly one line fits.
once() { [ "$(grep -Ec "$1" "$2")" = 1 ] || fail "expected exactly one $3 in" "$2"; }

# soon WHAT COMMAND...: waits until a command succeeds.
soon() {
    what=$1
    shift
    end=$(($(date +%s) + ${PATIENCE:-180}))
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || fail "waited in vain until $what"
        sleep 0.3
    done
}

# ran STATUS: 0 is all done, 2 an answer that a limit cut, which a small model may well come to; all else is a failure.
ran() { [ "$1" = 0 ] || [ "$1" = 2 ] || fail "the run did not end well"; }

# to_the_end KIND ARGUMENT...: a run from the command line, to its end.
to_the_end() {
    kind=$1
    shift
    status=0
    mesh "$kind" run "$@" >"$work/run" || status=$?
    cat "$work/run"
    ran "$status"
}

# start KIND NAME ARGUMENT ARGUMENT: a run that nobody watches; its id.
start() { loremesh "$1" run --detach --json "$2" "$3" "$4" | field id; }
status_of() { loremesh run get "$1" --json | field status; }
is() { [ "$(status_of "$1")" = "$2" ]; }
ended() { case $(status_of "$1") in RUN_STATUS_COMPLETED | RUN_STATUS_INCOMPLETE) ;; *) return 1 ;; esac }
waiting() { [ -n "$(loremesh approvals list --run "$1" --json | field approvals | sed 's/^\[\]$//')" ]; }
approval_of() { loremesh approvals list --run "$1" --json | field approvals.0.id; }
pid_of() {
    loremesh status --json |
        python -c 'import json, sys; print(*[p["pid"] for p in json.load(sys.stdin)["processes"] if p["name"] == sys.argv[1]])' "$1"
}
# accept RUN: whatever it asks of a human is approved, until it ends.
accept() {
    if waiting "$1"; then
        loremesh approvals approve "$(approval_of "$1")" >"$work/accepted" 2>&1 || true
    fi
    ended "$1"
}

chapter "What is there"
mesh crew list | tee "$work/crews"
mesh flow list | tee "$work/flows"
for crew in research code-review sales-support-en sales-support-th; do
    shows "^ *$crew +built in" "$work/crews" "the crew $crew"
done
for flow in sales-support content support; do
    shows "^ *$flow +built in" "$work/flows" "the flow $flow"
done

chapter "The five, from the command line"
to_the_end crew research --input "topic=how bees find their way home" --input "format=short summary"
shows 'writing +writer +(completed|incomplete)' "$work/run" "what the task writing took"
bees=$(sed -n 's/^run \([^ ]*\) is .*/\1/p' "$work/run")
mesh run file "$bees" article.md >"$work/article"
[ -s "$work/article" ] || fail "the article has no file"
to_the_end crew code-review --example
shows 'verdict +lead +(completed|incomplete)' "$work/run" "what the verdict took"
to_the_end flow sales-support --example
shows '^ *english ' "$work/run" "the state english"
to_the_end flow sales-support --input product=Loremesh --input question=ราคาเท่าไร --input language=Thai
shows '^ *thai ' "$work/run" "the state thai"
to_the_end flow content --input "topic=why the sea is salty"
shows '^ *(published|unapproved) ' "$work/run" "a final state of the flow"
article=$(sed -n 's/^run \([^ ]*\) is .*/\1/p' "$work/run")
# A model may find that a human is needed.
question=$(start flow support --input "question=What is a vector store?")
soon "the question is answered" accept "$question"
mesh run get "$question"

chapter "The five, over REST"
for path in crews/research crews/code-review flows/sales-support flows/content flows/support; do
    inputs=$(rest GET "/api/v1/$path" | field example_inputs)
    id=$(rest POST "/api/v1/$path/kickoff" "{\"inputs\": $inputs}" | field id)
    soon "the run of $path ends" accept "$id"
    rest GET "/api/v1/runs/$id/events" >"$work/events"
    shows '"run_started":' "$work/events" "the event run_started"
    once '"(completed|incomplete)":' "$work/events" "terminal event"
    rest GET "/api/v1/runs/$id" | field output
done

chapter "A human decides at another terminal"
refund=$(start flow support --input "question=I want my money back. Let me talk to a person!")
(loremesh run watch "$refund" >"$work/watched" 2>&1 || true) &
watcher=$!
soon "a human is asked" waiting "$refund"
soon "the watcher says how to decide" grep -q "approvals show" "$work/watched"
first=$(approval_of "$refund")
mesh approvals show "$first"
mesh approvals deny "$first" --comment "Say that we answer within a day."
sent_back() { waiting "$refund" && [ "$(approval_of "$refund")" != "$first" ]; }
soon "the next draft is there" sent_back
mesh approvals answer "$(approval_of "$refund")" "You have it back already."
soon "the run ends" ended "$refund"
wait "$watcher"
cat "$work/watched"
shows '^You have it back already\.$' "$work/watched" "what the human wrote"
mesh run explain "$refund" --state triage | tee "$work/explained"
shows 'escalation, priority 10: taken' "$work/explained" "the transition that was taken"

chapter "Both services die amid a run"
killed=$(start crew research --input "topic=how glaciers move")
begun() { loremesh run get "$killed" --json | grep -q TASK_STATUS_IN_PROGRESS; }
soon "a task is at work" begun
for service in crew agent; do
    pid=$(pid_of "$service")
    [ -n "$pid" ] || fail "no $service service runs here: set LOREMESH_HOME to the data directory of the mesh"
    echo "\$ kill -9 $pid # the $service service"
    kill -9 "$pid"
done
# It is the same run: what was done is not done again.
mesh run watch "$killed" || ran $?
soon "the run ends" ended "$killed"
mesh run get "$killed" --json >"$work/killed"
for task in research writing; do
    python - "$work/killed" "$task" <<'PYTHON' || fail "the task $task is not there once and done" "$work/killed"
import json, sys
tasks = [t for t in json.load(open(sys.argv[1]))["tasks"] if t["name"] == sys.argv[2]]
sys.exit([t["status"] in ("TASK_STATUS_COMPLETED", "TASK_STATUS_INCOMPLETE") for t in tasks] != [True])
PYTHON
done

chapter "Decided anew, and compared"
for id in "$killed" "$refund" "$article"; do
    mesh run replay "$id" | tee "$work/replayed"
    shows '^[0-9]+ decisions, each as it was$' "$work/replayed" "decisions that are what they were"
done
mesh run diff "$bees" "$killed" | tee "$work/diff"
shows '^inputs.topic$' "$work/diff" "the topic that differs"
shows '^\+ how glaciers move$' "$work/diff" "the other topic"

chapter "Going on from the middle, otherwise"
seq=$(loremesh run watch "$bees" --json | python -c '
import json, sys
events = [json.loads(line) for line in sys.stdin]
print(next(e["seq"] for e in events if "task_started" in e and e["path"] == ["writing"]))')
status=0
mesh run fork "$bees" --after "$seq" --describe "writing=Write one sentence about {topic}." >"$work/forked" || status=$?
cat "$work/forked"
ran "$status"
forked=$(sed -n 's/^run \([^ ]*\) is .*/\1/p' "$work/forked")
[ -n "$forked" ] || fail "the fork has no end" "$work/forked"
[ "$(loremesh run get "$forked" --json | field forked_from_run_id)" = "$bees" ] || fail "the fork says not of what"
mesh run diff "$bees" "$forked" | tee "$work/diff"
if grep -q '^tasks\.research\.output$' "$work/diff"; then fail "what was done was done again" "$work/diff"; fi

chapter "A signal from outside"
mesh flow create examples/release-flow.yaml --id "$name"
release=$(loremesh flow run "$name" --detach --json | field id)
soon "the flow waits" is "$release" RUN_STATUS_IN_PROGRESS
if loremesh run signal "$release" nonsense 2>"$work/refused"; then fail "a signal that nobody waits for was taken"; fi
shows SIGNAL_UNKNOWN "$work/refused" "the reason"
mesh run signal "$release" decision --payload '"ship it"' --id walk
mesh run watch "$release" >"$work/released" || fail "the flow did not end well" "$work/released"
cat "$work/released"
shows '^Decided: ship it$' "$work/released" "its output"
mesh run explain "$release" --state deciding | tee "$work/explained"
shows 'shipped, priority 10: taken' "$work/explained" "the transition that was taken"
shows 'startsWith' "$work/explained" "the condition it was taken for"

chapter "Paused, resumed, cancelled"
release=$(loremesh flow run "$name" --detach --json | field id)
mesh run pause "$release"
soon "it is paused" is "$release" RUN_STATUS_INTERRUPTED
mesh run resume "$release"
soon "it goes on" is "$release" RUN_STATUS_IN_PROGRESS
mesh run cancel "$release" --comment "only a walk"
soon "it is cancelled" is "$release" RUN_STATUS_CANCELLED

chapter "A CrewAI project"
mesh crew import examples/crewai-project --id "$name"
mesh crew get "$name" | tee "$work/imported"
shows '^- name: reporting_task$|^  *name: reporting_task$' "$work/imported" "the task reporting_task"
to_the_end crew "$name" --input "topic=lighthouses"
shows 'reporting_task +reporting_analyst +(completed|incomplete)' "$work/run" "what the report took"

chapter "As a picture, and whole"
mesh run tree "$article" | tee "$work/tree"
shows 'review: ' "$work/tree" "the child run of the state review"
mesh run export "$article" | tee "$work/graph"
shows '^(graph|flowchart|stateDiagram)' "$work/graph" "a Mermaid graph"
mesh run export "$article" --format json | field run | grep -q content || fail "the export is not the run"

printf '\nAll of it is as docs/crews.md tells.\n'
