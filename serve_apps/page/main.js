/**
 * Start of the page: snapshot from the API, then messages; who listens to whom.
 *
 * Order matters once: subscriptions first, snapshot second. What happens between the two
 * arrives as messages, and rows are kept by version, so nothing is missed and nothing
 * goes back. After a gap that the server cannot fill, the snapshot is loaded again.
 */

import { AlertActions } from "./actions.js";
import { AlertsTable } from "./alerts_table.js";
import { api } from "./api.js";
import { CentrifugeClient } from "./centrifuge.js";
import { DeviceCard } from "./device_card.js";
import { Devices } from "./devices.js";
import { byId, setText } from "./dom.js";
import { Drawer } from "./drawer.js";
import { Clock } from "./format.js";
import { Keyboard } from "./keyboard.js";
import { Machine } from "./machine.js";
import { applyMessage } from "./messages.js";
import { Silences } from "./silences.js";
import { Sparks } from "./sparks.js";
import { FINISHED, Store, isSuppressed } from "./store.js";
import { Toasts } from "./toasts.js";
import { TopBar } from "./topbar.js";
import { Labels } from "./labels.js";
import { Models } from "./models.js";
import { Reports } from "./reports.js";
import { Training } from "./training.js";
import { View } from "./view.js";

const PAGE = 500;
const MOST_UNACKED = 5000;
const POLL_MS = 5000;
const RETRY_MS = 3000;
const SEARCH_MS = 400; // after the last key, the floor is asked for what is not loaded
const SHORTEST_SEARCH = 3;

const store = new Store();
const view = new View(store);
const clock = new Clock();
const toasts = new Toasts();
const sparks = new Sparks(api, () => store.touch("sparks"));
const actions = new AlertActions({ store, view, api, toasts });
const silences = new Silences({ store, view, api, toasts });
const drawer = new Drawer({ store, view, api, clock, actions, onSilence: () => silences.open() });
const table = new AlertsTable({ store, view, sparks, clock, onOpen: (id) => drawer.open(id), onAcknowledge: (id) => actions.acknowledge(id) });
new TopBar({ store, view, clock, onReconnect: () => reconnect() });
new Devices({ store, view, clock });
new DeviceCard({ store, view, api, clock, toasts, listen: (channel, isWanted) => (isWanted ? client?.subscribe(channel) : client?.unsubscribe(channel)) });
const reports = new Reports({ store, api });
const onReport = (model) => reports.open(model);
new Training({ store, api, clock, toasts, onReport });
const labels = new Labels({ store, api, toasts, hold: (session) => client?.tell("hold_labels", { session }) });
new Models({ store, api, clock, toasts, onReport, reload: () => loadModels() });
new Machine({ store, api, clock });

let client = null;
const followed = new Set(); // runs whose channel we have joined
let searched = "";
let searchTimer = 0;

async function start() {
  try {
    store.config = await api.config();
  } catch (error) {
    if (error.status === 401) return signedOut();
    setText(byId("link-text"), `${error.message}; trying again`);
    setTimeout(start, RETRY_MS);
    return;
  }
  clock.set(store.config.now);
  store.touch("config");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  client = new CentrifugeClient(`${scheme}://${location.host}${store.config.ws_path}`, {
    state: onState,
    publication: onPublication,
    lost: () => loadAll(),
    refused: (channel) => followed.delete(channel),
  });
  client.connect();
  poll();
}

function onState(state) {
  const before = store.connection;
  const next = { ...state };
  if (state.name === "connected") {
    labels.hold(); // a new socket does not know what the one before held
    if (before.staleSince) next.resumedMs = Date.now() - before.lostAt;
    else loadAll(); // after a cut the streams fill the gap themselves, or `lost` is called
  } else if (client?.heardAt) {
    next.staleSince = before.staleSince ?? clock.now() - (Date.now() - client.heardAt);
    next.lostAt = before.lostAt ?? Date.now();
    if (state.name === "waiting") checkSignIn();
  }
  store.connection = next;
  store.touch("connection");
}

function onPublication(_channel, message) {
  applyMessage(store, message, {
    onNewAlert(alert) {
      store.arrived.set(alert.id, performance.now());
      if (alert.severity === "critical" && alert.handling === "new" && !isSuppressed(alert)) {
        setText(byId("announce"), `Critical alert on ${alert.device_id}: ${alert.title}`);
      }
    },
    onRun: followRuns,
    onModel(type, data) {
      const name = data.model_id ?? data.version ?? data.model_version;
      if (type === "ml_training_complete") toasts.say(`Training complete: model ${name}.`);
      loadStatus();
      loadModels();
    },
    onNotice: (text) => {
      toasts.say(text, { kind: "problem" });
      loadStatus();
    },
  });
}

/** A refused handshake looks like a broken line; the API tells the two apart. */
async function checkSignIn() {
  try {
    await api.config();
  } catch (error) {
    if (error.status === 401) signedOut();
  }
}

function signedOut() {
  const { staleSince } = store.connection;
  client?.disconnect();
  store.connection = { name: "closed", isSignedOut: true, staleSince: staleSince ?? clock.now() };
  store.touch("connection");
}

function reconnect() {
  client?.connect();
}

/** Load one topic; a failure is said in its panel and tried again, what is shown stays. */
async function load(topic, work) {
  try {
    await work();
    store.loaded[topic] = true;
    delete store.problems[topic];
  } catch (error) {
    if (error.status === 401) signedOut();
    store.problems[topic] = error.message;
  }
  store.touch(topic);
}

function loadAll() {
  loadAlerts();
  loadRuns();
  loadDevices();
  loadStatus();
  loadModels();
}

/** Every unacknowledged alert, whatever their number, and the newest of the others. */
function loadAlerts() {
  return load("alerts", async () => {
    let cursor;
    for (let loaded = 0; loaded < MOST_UNACKED; loaded += PAGE) {
      const page = await api.alerts({ handling: "new", limit: PAGE, cursor });
      page.items.forEach((row) => store.mergeAlert(row));
      cursor = page.next_cursor;
      if (!cursor) break;
    }
    const recent = await api.alerts({ limit: PAGE });
    recent.items.forEach((row) => store.mergeAlert(row));
    store.moreAlerts = recent.next_cursor;
  });
}

function loadOlder() {
  return load("alerts", async () => {
    const page = await api.alerts({ limit: PAGE, cursor: store.moreAlerts });
    page.items.forEach((row) => store.mergeAlert(row));
    store.moreAlerts = page.next_cursor;
  });
}

/** What the filter's words find on the floor, beyond what is loaded here. */
async function search() {
  const { query } = view;
  if (!store.moreAlerts || query.length < SHORTEST_SEARCH || query === searched) return;
  searched = query;
  try {
    const page = await api.alerts({ q: query, limit: PAGE });
    page.items.forEach((row) => store.mergeAlert(row));
  } catch {
    searched = ""; // what is loaded is filtered all the same
  }
}

function loadRuns() {
  return load("runs", async () => {
    const { items } = await api.runs({ limit: 30 });
    items.forEach((run) => store.mergeRun(run));
    followRuns();
    store.lanes = (await api.lanes()).lanes;
    store.touch("lanes");
  });
}

function loadDevices() {
  return load("devices", async () => {
    store.devices = (await api.devices()).items;
  });
}

function loadModels() {
  return load("models", async () => {
    store.models = await api.models();
  });
}

function loadStatus() {
  return load("status", async () => {
    store.status = await api.status();
  });
}

/** Join the channel of every run that still moves and of the newest finished one; leave the rest. */
function followRuns() {
  const newest = Array.from(store.runs.values()).sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at))[0];
  for (const run of store.runs.values()) {
    const channel = `run:${run.id}`;
    const isWanted = !FINISHED.has(run.state) || run === newest;
    if (isWanted && !followed.has(channel)) {
      followed.add(channel);
      client?.subscribe(channel);
    } else if (!isWanted && followed.delete(channel)) {
      client?.unsubscribe(channel);
    }
  }
}

/** What no message tells of: presence of devices, state of services, places in the lanes. */
function poll() {
  setInterval(() => {
    if (document.hidden || store.connection.name !== "connected") return;
    loadDevices();
    loadStatus();
    loadRuns();
    loadModels();
    if (store.problems.alerts) loadAlerts();
  }, POLL_MS);
}

function escape() {
  if (drawer.close()) return;
  byId("search").value = "";
  view.change({ query: "", device: null, severities: new Set() });
}

new Keyboard([
  { group: "Move", keys: ["j", "ArrowDown"], text: "next alert", run: () => table.move(1) },
  { group: "Move", keys: ["k", "ArrowUp"], text: "previous alert", run: () => table.move(-1) },
  { group: "Move", keys: ["Enter"], text: "open the evidence", run: () => view.selected && drawer.open(view.selected) },
  { group: "Move", keys: ["Escape"], text: "close the evidence, then clear the filter", run: escape },
  { group: "Act", keys: ["a"], text: "acknowledge, or take it back", run: () => actions.acknowledge() },
  { group: "Act", keys: ["A"], text: "acknowledge all that the list shows", run: () => actions.acknowledgeAll(table.list) },
  { group: "Act", keys: ["s"], text: "silence: nobody is told for a while", run: () => silences.open() },
  { group: "Act", keys: ["c"], text: "close the alert", run: () => actions.closeAlert() },
  { group: "Verdict", keys: ["t"], text: "true alarm", run: () => actions.verdict("true_positive") },
  { group: "Verdict", keys: ["f"], text: "false alarm", run: () => actions.verdict("false_positive") },
  { group: "Verdict", keys: ["e"], text: "expected", run: () => actions.verdict("expected") },
  { group: "Verdict", keys: ["u"], text: "unsure", run: () => actions.verdict("unsure") },
  { group: "Page", keys: ["x"], text: "show or hide what is silenced", run: () => view.change({ showsSuppressed: !view.showsSuppressed }) },
  { group: "Page", keys: ["S"], text: "silences and maintenance", run: () => silences.open(null) },
  { group: "Page", keys: ["L"], text: "label what active learning asks", run: () => labels.open() },
  { group: "Page", keys: ["/"], text: "filter", run: () => byId("search").focus() },
  { group: "Page", keys: ["?"], text: "this help", run: () => byId("help-open").click() },
]);

byId("older").addEventListener("click", loadOlder);
addEventListener("online", reconnect);
const linked = /^#alert=(.+)$/.exec(location.hash);
if (linked) {
  view.selected = decodeURIComponent(linked[1]);
  drawer.open(view.selected);
}
store.listen(["view"], () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(search, SEARCH_MS);
});
store.touch("alerts", "view", "runs", "devices", "status", "connection");
start();
