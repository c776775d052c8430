// What the page believes: versions, optimism, progress, order, words.
import assert from "node:assert/strict";
import { test } from "node:test";

import { lossText, ticks } from "../../serve_apps/page/chart.js";
import { Clock, age, count, duration, modelLabel, num } from "../../serve_apps/page/format.js";
import { applyMessage } from "../../serve_apps/page/messages.js";
import { matchersText, readMatchers } from "../../serve_apps/page/matchers.js";
import { Store, TABS, matches } from "../../serve_apps/page/store.js";
import { View } from "../../serve_apps/page/view.js";

const now = (fn) => fn();
const alert = (id, changes = {}) => ({
  id, tenant: "demo", device_id: "pump-1", severity: "high", condition: "firing", handling: "new", verdict: null, title: "Unusual value",
  starts_at: "2026-01-01T00:00:00Z", version: 1, source: { kind: "model", model: "ar-baseline", model_version: "1", score: 5 }, ...changes,
});

function stocked(...alerts) {
  const store = new Store(now);
  for (const one of alerts) store.mergeAlert(one);
  return store;
}

test("an older version of an alert never replaces a newer one", () => {
  const store = stocked(alert("a", { version: 3, handling: "acked" }));
  store.mergeAlert(alert("a", { version: 2 }));
  assert.equal(store.alert("a").handling, "acked");
});

test("an expected change is shown, and taken back without losing what the server said", () => {
  const store = stocked(alert("a"));
  const takeBack = store.expect(["a"], { handling: "acked" });
  store.mergeAlert(alert("a", { version: 2, severity: "critical" }));
  assert.deepEqual([store.alert("a").handling, store.alert("a").severity, store.alert("a").isPending], ["acked", "critical", true]);
  takeBack();
  assert.deepEqual([store.alert("a").handling, store.alert("a").severity, store.alert("a").isPending], ["new", "critical", undefined]);
});

test("messages of every kind reach their place, unknown ones nothing", () => {
  const store = new Store(now);
  const heard = [];
  const on = { onNewAlert: (one) => heard.push(one.id), onModel: (type) => heard.push(type), onNotice: (text) => heard.push(text) };
  for (const type of ["critical_alert", "alert_notification", "tenant_alert", "supervisor_alert", "alert_update"]) {
    applyMessage(store, { type, data: { alert: alert(type) } }, on);
  }
  applyMessage(store, { type: "alert_update", data: { alert: alert("alert_update", { version: 2 }) } }, on);
  applyMessage(store, { type: "run_update", data: { id: "r", state: "running", version: 1 } }, on);
  applyMessage(store, { type: "ingest_status", data: { rate: 3 } }, on);
  applyMessage(store, { type: "model_update", data: {} }, on);
  applyMessage(store, { type: "command_update", data: { command: { id: "c", state: "sent", version: 2 } } }, on);
  applyMessage(store, { type: "system_alert", data: { message: "ingest stopped" } }, on);
  applyMessage(store, { type: "of_tomorrow", data: {} }, on);
  assert.equal(store.alertCount, 5);
  assert.deepEqual(heard, ["critical_alert", "alert_notification", "tenant_alert", "supervisor_alert", "alert_update", "model_update", "ingest stopped"]);
  assert.deepEqual([store.runs.get("r").state, store.ingest.data.rate, store.commands.get("c").state], ["running", 3, "sent"]);
});

test("a command only moves on, and a message without a payload keeps the one that is known", () => {
  const store = new Store(now);
  store.mergeCommand({ id: "c", state: "queued", version: 1, payload: { do: "lock" } });
  store.mergeCommand({ id: "c", state: "ok", version: 3 });
  store.mergeCommand({ id: "c", state: "sent", version: 2 });
  store.mergeCommand({ id: "fast", state: "ok", version: 4 });
  store.mergeCommand({ id: "fast", state: "queued", version: 1, payload: { do: "lock" } });
  assert.deepEqual(store.commands.get("fast"), { id: "fast", state: "ok", version: 4, payload: { do: "lock" } });
  assert.deepEqual(store.commands.get("c"), { id: "c", state: "ok", version: 3, payload: { do: "lock" } });
  for (let number = 0; number < 600; number += 1) store.mergeCommand({ id: `x${number}`, version: 1 });
  assert.equal(store.commands.size, 500);
});

test("a run's bar never goes back, and each value is one point of its curve", () => {
  const store = new Store(now);
  store.mergeRun({ id: "r", state: "running", progress: 0, version: 2 });
  for (const epoch of [1, 2, 2, 3]) store.mergeProgress({ run_id: "r", progress: epoch * 10, epoch, loss: 1 / epoch, val_loss: 2 / epoch });
  store.mergeRun({ id: "r", state: "running", progress: 10, version: 3 });
  assert.equal(store.runs.get("r").progress, 30);
  assert.deepEqual(store.curves.get("r").points.map((point) => point.x), [1, 2, 3]);
  assert.equal(lossText(store.curves.get("r").points), "loss 0.3333, validation loss 0.6667");
});

test("progress that comes after the end does not wake the run", () => {
  const store = new Store(now);
  store.mergeRun({ id: "r", state: "cancelled", progress: 40, version: 5, reason: "cancelled by nora" });
  store.mergeProgress({ run_id: "r", progress: 50 });
  assert.deepEqual([store.runs.get("r").state, store.runs.get("r").progress], ["cancelled", 40]);
});

test("a run whose process died ends with the reason that its channel gave", () => {
  const store = new Store(now);
  store.mergeRun({ id: "r", state: "running", progress: 40, version: 5 });
  store.mergeProgress({ run_id: "r", progress: 40, state: "failed", reason: "worker died" });
  assert.deepEqual([store.runs.get("r").state, store.runs.get("r").reason], ["failed", "worker died"]);
});

test("one panel's bug does not keep the others from drawing", () => {
  globalThis.reportError = () => {};
  const store = new Store(now);
  const drawn = [];
  store.listen(["alerts"], () => { throw new Error("bug"); });
  store.listen(["alerts"], () => drawn.push("second"));
  store.mergeAlert(alert("a"));
  assert.deepEqual(drawn, ["second"]);
});

test("the worst comes first, and the newest of the equally bad", () => {
  const store = stocked(
    alert("low", { severity: "low" }), alert("old", { severity: "critical" }),
    alert("new", { severity: "critical", starts_at: "2026-01-02T00:00:00Z" }), alert("acked", { handling: "acked" }),
  );
  assert.deepEqual(new View(store).rows().map((one) => one.id), ["new", "old", "low"]);
});

test("while the order is held rows change in place and newcomers are counted", () => {
  const store = stocked(alert("a"), alert("b"));
  const view = new View(store);
  view.hold(view.rows().map((one) => one.id));
  store.mergeAlert(alert("worse", { severity: "critical" }));
  store.mergeAlert(alert("a", { version: 2, handling: "acked" }));
  assert.deepEqual(view.rows().map((one) => [one.id, one.handling]), [["a", "acked"], ["b", "new"]]);
  assert.equal(view.waiting, 1);
  view.release();
  assert.deepEqual(view.rows().map((one) => one.id), ["worse", "b"]);
});

test("filters add up", () => {
  const store = stocked(alert("a"), alert("b", { device_id: "door-2" }), alert("c", { severity: "low" }));
  const view = new View(store);
  view.change({ query: "pump baseline" });
  assert.deepEqual(view.rows().map((one) => one.id), ["a", "c"]);
  view.change({ severities: new Set(["low"]) });
  assert.deepEqual(view.rows().map((one) => one.id), ["c"]);
  view.change({ query: "", severities: new Set(), device: { tenant: "demo", device: "door-2" } });
  assert.deepEqual(view.rows().map((one) => one.id), ["b"]);
  assert.ok(matches(alert("a"), "PUMP") && !matches(alert("a"), "pump nothing"));
});

test("the counts of the tabs are those of their alerts", () => {
  const store = stocked(alert("a"), alert("b", { handling: "acked", condition: "cleared" }), alert("c", { handling: "closed" }));
  assert.deepEqual(Object.fromEntries(new View(store).tabCounts()), { unacked: 1, firing: 1, acked: 1, closed: 1, all: 3 });
  assert.equal(TABS[0].id, "unacked");
});

test("numbers and ages read the same at every size", () => {
  assert.deepEqual([0, 0.5, 12.3456, 1234.5, 45123, 12345678, 0.000012, null, NaN].map(num), ["0", "0.5", "12.35", "1235", "45\u2009123", "1.23e+7", "1.20e-5", "–", "–"]);
  assert.deepEqual([-5, 900, 59_999, 60_000, 3_600_000, 90_000_000, NaN].map(age), ["0 s", "0 s", "59 s", "1:00", "1 h 00", "1 d", "–"]);
  assert.deepEqual([450, 3200, 61_000, 7_260_000].map(duration), ["450 ms", "3.2 s", "1 min 01 s", "2 h 01 min"]);
  assert.deepEqual([modelLabel("ar-baseline", "1"), modelLabel("x", "ar-baseline@1"), modelLabel("x", null), count(1234567)], ["ar-baseline@1", "ar-baseline@1", "x", "1\u2009234\u2009567"]);
});

test("ages are counted on the server's clock", () => {
  const clock = new Clock(() => 1000);
  clock.set("1970-01-01T00:01:00Z");
  assert.equal(clock.now(), 60_000);
});

test("axes carry round values", () => {
  assert.deepEqual(ticks(0, 10, 4), [0, 5, 10]);
  assert.deepEqual(ticks(0.12, 0.48, 4), [0.2, 0.3, 0.4]);
  assert.deepEqual(ticks(5, 5, 4), [5]);
});

test("one message changes many alerts, but none that is newer or not here", () => {
  const ids = ["01HZZZZZZZZZZZZZAAAAAAAAA1", "01HZZZZZZZZZZZZZAAAAAAAAA2", "01HZZZZZZZZZZZZZAAAAAAAAA3"];
  const store = stocked(alert(ids[0]), alert(ids[1]), alert(ids[2], { version: 5, handling: "closed" }));
  const changes = [{ version: 2, set: { handling: "acked", acked_by: "ann" }, ids: [...ids, "01HZZZZZZZZZZZZZBBBBBBBBBB"].map((id) => id.slice(-10)).join("") }];
  applyMessage(store, { type: "alerts_changed", data: { action: "acknowledged", changes } }, {});
  assert.deepEqual(ids.map((id) => [store.alert(id).handling, store.alert(id).version]), [["acked", 2], ["acked", 2], ["closed", 5]]);
  assert.equal(store.alertCount, 3);
});

test("what is silenced is out of sight, and counted, until it is asked for", () => {
  const silence = { kind: "silence", ref: "s", reason: "rewiring", by: "ann", until: null };
  const store = stocked(alert("a"), alert("b", { suppressed_by: [silence] }), alert("c", { suppressed_by: [silence], handling: "closed" }));
  const view = new View(store);
  assert.deepEqual([view.rows().map((one) => one.id), view.suppressedCount(), view.tabCounts().get("unacked")], [["a"], 1, 1]);
  view.change({ showsSuppressed: true });
  assert.deepEqual([view.rows().map((one) => one.id).sort(), view.tabCounts().get("unacked")], [["a", "b"], 2]);
});

test("a silence is kept by its version, and gone when it is over", () => {
  const store = new Store(now);
  const silence = { id: "s", version: 2, state: "active" };
  store.mergeSilence(silence);
  store.mergeSilence({ ...silence, version: 1, state: "expired" });
  assert.equal(store.silences.size, 1);
  store.mergeSilence({ ...silence, version: 3, state: "expired" });
  assert.equal(store.silences.size, 0);
});

test("matchers read what they write, and say what they cannot read", () => {
  const matchers = [
    { field: "site", values: ["hall-*", "yard"], is_negated: false },
    { field: "severity", values: ["critical"], is_negated: true },
    { field: "label.line", values: ['the "new", one\\'], is_negated: false },
  ];
  assert.deepEqual(readMatchers(matchersText(matchers)), matchers);
  for (const text of ["", "site", "site=", "site= x", "site=a,", 'site="open', "=x"]) assert.throws(() => readMatchers(text), Error, text);
});
