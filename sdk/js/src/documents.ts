/** The GraphQL that is sent. Documents are few and always the same text, so that the server parses each once. */

const LEASE_FIELDS =
  "id attempt " +
  "task { id name channel workgroup key input metadata priority remainingAttempts timeoutSeconds group { id } } " +
  "parents { taskId name channel state input output }";
const ERRORS = "errors { index lease code message path }";

/** Field of Mutation → its argument's type and what is selected. In this order: what was finished may free what is claimed. */
const PARTS = {
  completeTasks: ["CompleteTasksInput", `completed ${ERRORS}`],
  failTasks: ["FailTasksInput", `failed ${ERRORS}`],
  releaseLeases: ["ReleaseLeasesInput", `released ${ERRORS}`],
  extendLeases: ["ExtendLeasesInput", `expiresAt suspended ${ERRORS}`],
  claimTasks: ["ClaimTasksInput", `leases { ${LEASE_FIELDS} }`],
} as const;

export type Field = keyof typeof PARTS;

export const CLAIMED_TASKS =
  "subscription ClaimedTasks($input: ClaimedTasksInput!) " + `{ claimedTasks(input: $input) { leases { ${LEASE_FIELDS} } } }`;
export const CREATE_GROUP =
  "mutation CreateTaskGroup($input: CreateTaskGroupInput!) " +
  "{ createTaskGroup(input: $input) { __typename } }";
export const CREATE_TASKS =
  "mutation CreateTasks($input: CreateTasksInput!) { createTasks(input: $input) { __typename } }";
export const GROUP =
  "query Group($id: ID!) { taskGroup(id: $id) " +
  "{ id name isPaused finishedAt progress { fraction total counts { state count } } } }";
export const FAILED_TASKS =
  "query FailedTasks($id: ID!) { tasks(filter: {groupId: $id, states: [FAILED]}, first: 100) " +
  "{ nodes { id name state errors(last: 1) { error } } } }";
export const TASK =
  "query Task($id: ID!) { task(id: $id) { id name state output attempt errors(last: 100) { attempt error } } }";
const EVENT_FIELDS = "cursor events { kind taskId groupId state attempt }";
export const EVENTS_POLL =
  "query TaskEvents($after: Cursor, $filter: TaskEventFilter, $waitSeconds: Float!) " +
  `{ taskEvents(after: $after, filter: $filter, waitSeconds: $waitSeconds) { ${EVENT_FIELDS} } }`;

const made = new Map<string, string>();

/** One document for these fields of Mutation, each with a variable of its own name. */
export function mutation(...fields: Field[]): string {
  const key = fields.join();
  let text = made.get(key);
  if (text === undefined) {
    const variables = fields.map((field) => `$${field}: ${PARTS[field][0]}!`).join(", ");
    const body = fields.map((field) => `${field}(input: $${field}) { ${PARTS[field][1]} }`).join(" ");
    made.set(key, (text = `mutation Work(${variables}) { ${body} }`));
  }
  return text;
}
