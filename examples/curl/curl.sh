#!/bin/sh
# A producer and a worker with nothing but curl and jq.
set -eu
url="${CREW_URL:-http://127.0.0.1:8000}/graphql"
worker="curl-$$"

# ask QUERY VARIABLES: the data. Every call below is safe to repeat, so curl may try again.
ask() {
  jq -n --arg query "$1" --argjson variables "$2" '{query: $query, variables: $variables}' |
    curl -sS --fail --retry 5 --retry-connrefused -H 'content-type: application/json' --data @- "$url" |
    jq -e 'if .errors then .errors | halt_error else .data end'
}

# Two tasks, the second after the first. Ids of our own make it safe to send twice.
group=$(cat /proc/sys/kernel/random/uuid)
ask 'mutation($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { taskGroup { id } } }' "$(
  jq -n --arg id "$group" --arg channel "add-$$" '{input: {id: $id, name: "by curl", tasks: [
    {ref: "sum", name: "sum", channel: $channel, input: [1, 2]},
    {name: "more", channel: $channel, input: [4], parents: [{ref: "sum"}]}]}}'
)" > /dev/null

# Claim, work, and hand in together with the next claim, until nothing is left. The first claim has nothing to hand in.
results='[]'
while :; do
  answer=$(ask 'mutation($done: CompleteTasksInput!, $next: ClaimTasksInput!) {
      completeTasks(input: $done) { errors { code message } }
      claimTasks(input: $next) { leases { id task { name input } parents { output } } } }' "$(
    jq -n --argjson results "$results" --arg worker "$worker" --arg channel "add-$$" --arg claim "$(cat /proc/sys/kernel/random/uuid)" \
      '{done: {results: $results}, next: {workerId: $worker, channels: [$channel], limit: 10, claimId: $claim}}'
  )")
  leases=$(echo "$answer" | jq -c .claimTasks.leases)
  [ "$leases" = '[]' ] && break
  results=$(echo "$leases" | jq -c '[.[] | {lease: .id, output: ((.task.input + [.parents[].output]) | add)}]')
done

ask 'query($id: ID!) { taskGroup(id: $id) { graph { nodes { name state output } } } }' "{\"id\": \"$group\"}" |
  jq -r '.taskGroup.graph.nodes[] | "\(.name): \(.state) \(.output)"'
