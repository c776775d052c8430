/**
 * Calls to the HTTP API of the gateway that served this page.
 *
 * The cookie says who we are. Every failure becomes an `ApiError` whose message is the
 * server's own sentence; a call never waits longer than its time-out.
 */

const TIMEOUT_MS = 15_000;

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function call(method, path, body, keepalive = false) {
  let response;
  try {
    response = await fetch(`/api/v1/${path}`, {
      method,
      credentials: "same-origin",
      headers: body === undefined ? { accept: "application/json" } : { accept: "application/json", "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
      cache: "no-store",
      keepalive,
    });
  } catch (error) {
    const isTimeout = error.name === "TimeoutError";
    throw new ApiError(0, isTimeout ? "timeout" : "unreachable", isTimeout ? "the floor did not answer in 15 s" : "the floor cannot be reached");
  }
  let content = null;
  try {
    content = await response.json();
  } catch {
    // A proxy's own error page: the status has to say it.
  }
  if (response.ok && content !== null) return content;
  const error = content?.error;
  throw new ApiError(response.status, error?.code ?? `http_${response.status}`, error?.message ?? `the floor answered ${response.status}`);
}

const query = (params) => {
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

export const requestId = () => crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

export const api = {
  config: () => call("GET", "config"),
  status: () => call("GET", "status"),
  alerts: (params = {}) => call("GET", `alerts${query(params)}`),
  alert: (id) => call("GET", `alerts/${encodeURIComponent(id)}`),
  sparks: (ids) => call("GET", `alerts/sparks${query({ ids: ids.join(",") })}`),
  act: (action, ids, args = {}) => call("POST", "alerts/actions", { action, ids, args, request_id: requestId() }),
  silences: (params = {}) => call("GET", `silences${query(params)}`),
  silence: (body) => call("POST", "silences", { ...body, request_id: requestId() }),
  changeSilence: (id, body) => call("PATCH", `silences/${encodeURIComponent(id)}`, body),
  endSilence: (id) => call("POST", `silences/${encodeURIComponent(id)}/expire`, {}),
  devices: () => call("GET", "devices"),
  telemetry: (tenant, device, params = {}) =>
    call("GET", `devices/${encodeURIComponent(tenant)}/${encodeURIComponent(device)}/telemetry${query(params)}`),
  device: (tenant, device) => call("GET", `directory/devices/${encodeURIComponent(tenant)}/${encodeURIComponent(device)}`),
  changeDevice: (tenant, device, changes) => call("PATCH", `directory/devices/${encodeURIComponent(tenant)}/${encodeURIComponent(device)}`, changes),
  directory: (kind, params = {}) => call("GET", `directory/${kind}${query(params)}`),
  commands: (params = {}) => call("GET", `commands${query(params)}`),
  sendCommand: (tenant, device, payload, seconds) =>
    call("POST", "commands", { tenant, device, payload, timeout_s: seconds, request_id: requestId() }),
  runs: (params = {}) => call("GET", `runs${query(params)}`),
  run: (id) => call("GET", `runs/${encodeURIComponent(id)}`),
  startRun: (task, args) => call("POST", "runs", { task, arguments: args, request_id: requestId() }),
  cancelRun: (id) => call("POST", `runs/${encodeURIComponent(id)}/cancel`, { request_id: requestId() }),
  lanes: () => call("GET", "lanes"),
  models: () => call("GET", "models"),
  leaseLabels: (session) => call("POST", "labels/lease", { session, count: 1 }),
  renewLabels: (session) => call("POST", "labels/renew", { session }),
  answerLabel: (id, token, value, saw) => call("POST", "labels/answer", { id, token, value, saw_proposal: saw }),
  skipLabel: (id, token) => call("POST", "labels/skip", { id, token }),
  /** With `isLeaving` the call outlives the page. */
  releaseLabels: (session, isLeaving = false) => call("POST", "labels/release", { session }, isLeaving),
  modelOf: (alert) => call("GET", `models/of-alert/${encodeURIComponent(alert)}`),
  rollBack: (revision, reason) => call("POST", "models/rollback", { expected_revision: revision, reason }),
  report: (type, version, params = {}) => call("GET", `models/${encodeURIComponent(type)}/versions/${encodeURIComponent(version)}/report${query(params)}`),
  makeReport: (type, version, body) => call("POST", `models/${encodeURIComponent(type)}/versions/${encodeURIComponent(version)}/report`, { ...body, request_id: requestId() }),
  deadLetters: (params = {}) => call("GET", `dead-letters${query(params)}`),
  replayDeadLetters: (ids) => call("POST", "dead-letters/replay", { ids }),
};
