/**
 * What each broadcast means to the page: a message in, a change of the store out.
 *
 * Unknown types are left alone: a newer floor may send more than this page knows.
 */

const ALERTS = new Set(["critical_alert", "alert_notification", "alert_update", "tenant_alert", "supervisor_alert"]);

/**
 * @param {object} store
 * @param {{type: string, data: object, timestamp: string}} message
 * @param {{onNewAlert, onModel, onNotice}} on what else has to happen
 */
export function applyMessage(store, message, on) {
  const { type, data = {} } = message;
  if (ALERTS.has(type)) {
    if (!data.alert) return;
    const isNew = store.mergeAlert(data.alert);
    if (isNew) on.onNewAlert(data.alert);
  } else if (type === "alerts_changed") {
    store.mergeChanges(data.changes ?? []);
  } else if (type === "silence_update") {
    store.mergeSilence(data.silence);
  } else if (type === "run_update") {
    store.mergeRun(data.run ?? data);
    on.onRun?.(data.run ?? data);
  } else if (type === "task_progress") {
    store.mergeProgress(data);
  } else if (type === "ingest_status") {
    store.ingest = { data, heardAt: Date.now() };
    store.touch("ingest");
  } else if (type === "ml_training_complete" || type === "model_update") {
    on.onModel(type, data);
  } else if (type === "system_alert") {
    on.onNotice(data.message ?? data.text ?? "system alert");
  }
}
