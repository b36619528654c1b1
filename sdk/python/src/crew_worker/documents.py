"""The GraphQL that is sent. Documents are few and always the same text, so that the server parses each once."""

from functools import cache

LEASE_FIELDS = (
    "id attempt "
    "task { id name channel workgroup key input metadata priority remainingAttempts timeoutSeconds group { id } } "
    "parents { taskId name channel state input output }"
)
ERRORS = "errors { index lease code message path }"
# Field of Mutation → its argument's type and what is selected. In this order: what was finished may free what is claimed.
PARTS = {
    "completeTasks": ("CompleteTasksInput", f"completed {ERRORS}"),
    "failTasks": ("FailTasksInput", f"failed {ERRORS}"),
    "releaseLeases": ("ReleaseLeasesInput", f"released {ERRORS}"),
    "extendLeases": ("ExtendLeasesInput", f"expiresAt suspended {ERRORS}"),
    "claimTasks": ("ClaimTasksInput", f"leases {{ {LEASE_FIELDS} }}"),
}

CLAIMED_TASKS = (
    "subscription ClaimedTasks($input: ClaimedTasksInput!) "
    f"{{ claimedTasks(input: $input) {{ leases {{ {LEASE_FIELDS} }} }} }}"
)
CREATE_GROUP = (
    "mutation CreateTaskGroup($input: CreateTaskGroupInput!) { createTaskGroup(input: $input) { __typename } }"
)
CREATE_TASKS = "mutation CreateTasks($input: CreateTasksInput!) { createTasks(input: $input) { __typename } }"
GROUP = (
    "query Group($id: ID!) { taskGroup(id: $id) "
    "{ id name isPaused finishedAt progress { fraction total counts { state count } } } }"
)
FAILED_TASKS = (
    "query FailedTasks($id: ID!) { tasks(filter: {groupId: $id, states: [FAILED]}, first: 100) "
    "{ nodes { id name state errors(last: 1) { error } } } }"
)
TASK = "query Task($id: ID!) { task(id: $id) { id name state output attempt errors(last: 100) { attempt error } } }"
EVENT_FIELDS = "cursor events { kind taskId groupId state attempt }"
EVENTS_POLL = (
    "query TaskEvents($after: Cursor, $filter: TaskEventFilter, $waitSeconds: Float!) "
    f"{{ taskEvents(after: $after, filter: $filter, waitSeconds: $waitSeconds) {{ {EVENT_FIELDS} }} }}"
)
EVENTS_STREAM = (
    "subscription TaskEvents($after: Cursor, $filter: TaskEventFilter) "
    f"{{ taskEvents(after: $after, filter: $filter) {{ {EVENT_FIELDS} }} }}"
)


@cache
def mutation(*fields: str) -> str:
    """One document for these fields of Mutation, each with a variable of its own name."""
    variables = ", ".join(f"${field}: {PARTS[field][0]}!" for field in fields)
    body = " ".join(f"{field}(input: ${field}) {{ {PARTS[field][1]} }}" for field in fields)
    return f"mutation Work({variables}) {{ {body} }}"
