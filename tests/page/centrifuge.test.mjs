// The page's client against a server played by hand: hello, recovery, pings, close codes, back-off.
import assert from "node:assert/strict";
import { test } from "node:test";

import { CentrifugeClient, backoffMs, isFinal } from "../../serve_apps/page/centrifuge.js";

class FakeSocket {
  static all = [];
  constructor(url) {
    this.url = url;
    this.sent = [];
    FakeSocket.all.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.isClosed = true;
  }
  say(...messages) {
    this.onmessage({ data: messages.map((message) => JSON.stringify(message)).join("\n") });
  }
  drop(code, reason = "") {
    this.onclose({ code, reason });
  }
}

/** A client with fake sockets and timers that run only when told. */
function stage() {
  FakeSocket.all = [];
  const timers = new Map();
  const heard = { publications: [], states: [], lost: [], refused: [] };
  let id = 0;
  const client = new CentrifugeClient("ws://floor", {
    publication: (channel, data) => heard.publications.push([channel, data]),
    state: (state) => heard.states.push(state),
    lost: (channels) => heard.lost.push(channels),
    refused: (channel, error) => heard.refused.push([channel, error.code]),
  }, {
    WebSocket: FakeSocket,
    setTimeout: (fn, ms) => (timers.set(++id, { fn, ms }), id),
    clearTimeout: (timer) => timers.delete(timer),
    now: () => 0,
    random: () => 0.5,
  });
  const connect = (connected = {}) => {
    if (!FakeSocket.all.length) client.connect();
    const socket = FakeSocket.all.at(-1);
    socket.onopen();
    socket.say({ id: socket.sent.at(-1).id, connect: { client: "c", ping: 25, pong: true, subs: {}, ...connected } });
    return socket;
  };
  const fire = () => {
    const [key, { fn }] = [...timers].at(-1);
    timers.delete(key);
    fn();
  };
  return { client, heard, timers, connect, fire };
}

const pub = (offset, data) => ({ offset, data });

test("publications of a server-side subscription are handed over once and in order", () => {
  const { heard, connect } = stage();
  const socket = connect({ subs: { "noc:all": { recoverable: true, epoch: "e", offset: 3 } } });
  socket.say({ push: { channel: "noc:all", pub: pub(4, "a") } }, { push: { channel: "noc:all", pub: pub(4, "a") } });
  socket.say({ push: { channel: "noc:all", pub: pub(5, "b") } });
  assert.deepEqual(heard.publications, [["noc:all", "a"], ["noc:all", "b"]]);
});

test("after a cut it asks for what it missed and gets it", () => {
  const { heard, connect, fire } = stage();
  const first = connect({ subs: { "noc:all": { epoch: "e", offset: 3 } } });
  first.say({ push: { channel: "noc:all", pub: pub(4, "a") } });
  first.drop(3001, "shutdown");
  fire();
  const second = connect({ subs: { "noc:all": { epoch: "e", offset: 4, was_recovering: true, recovered: true, publications: [pub(5, "b")] } } });
  assert.deepEqual(second.sent[0].connect.subs, { "noc:all": { recover: true, epoch: "e", offset: 4 } });
  assert.deepEqual(heard.publications.map(([, data]) => data), ["a", "b"]);
  assert.deepEqual(heard.lost, []);
});

test("a gap that cannot be filled is said, and the stream goes on from there", () => {
  const { heard, connect, fire } = stage();
  connect({ subs: { "noc:all": { epoch: "e", offset: 3 } } }).drop(1006);
  fire();
  const socket = connect({ subs: { "noc:all": { epoch: "f", offset: 90, was_recovering: true, recovered: false } } });
  socket.say({ push: { channel: "noc:all", pub: pub(91, "x") } });
  assert.deepEqual(heard.lost, [["noc:all"]]);
  assert.deepEqual(heard.publications, [["noc:all", "x"]]);
});

test("a run's channel is joined with its history, again after a cut, and left", () => {
  const { client, heard, connect, fire } = stage();
  client.subscribe("run:1");
  const first = connect();
  const joined = first.sent.at(-1);
  assert.deepEqual(joined.subscribe, { channel: "run:1", recover: true, epoch: "", offset: 0 });
  first.say({ id: joined.id, subscribe: { epoch: "e", offset: 0, was_recovering: true, recovered: true, publications: [pub(1, 10), pub(2, 20)] } });
  first.drop(3000);
  fire();
  const second = connect();
  assert.deepEqual(second.sent.at(-1).subscribe, { channel: "run:1", recover: true, epoch: "e", offset: 2 });
  client.unsubscribe("run:1");
  assert.deepEqual(second.sent.at(-1).unsubscribe, { channel: "run:1" });
  assert.deepEqual(heard.publications.map(([, data]) => data), [10, 20]);
});

test("the first join of a channel whose history is gone is no loss", () => {
  const { client, heard, connect } = stage();
  client.subscribe("run:1");
  const socket = connect();
  socket.say({ id: socket.sent.at(-1).id, subscribe: { epoch: "e", offset: 900, was_recovering: true, recovered: false } });
  assert.deepEqual(heard.lost, []);
});

test("a refused channel is told and not asked for again", () => {
  const { client, heard, connect, fire } = stage();
  client.subscribe("run:1");
  const first = connect();
  first.say({ id: first.sent.at(-1).id, error: { code: 103, message: "permission denied" } });
  first.drop(3000);
  fire();
  assert.equal(connect().sent.filter((sent) => sent.subscribe).length, 0);
  assert.deepEqual(heard.refused, [["run:1", 103]]);
});

test("a ping is answered, and silence ends the connection", () => {
  const { heard, timers, connect } = stage();
  const socket = connect();
  socket.say({});
  assert.deepEqual(socket.sent.at(-1), {});
  const watchdog = [...timers.values()].find(({ ms }) => ms === 35_000);
  watchdog.fn();
  assert.ok(socket.isClosed);
  assert.equal(heard.states.at(-1).name, "waiting");
});

test("a final close code ends it, another one brings it back", () => {
  for (const [code, name] of [[3500, "closed"], [3999, "closed"], [4500, "closed"], [1009, "closed"], [3000, "waiting"], [3499, "waiting"], [4000, "waiting"], [4499, "waiting"], [1006, "waiting"], [1001, "waiting"]]) {
    const { heard, connect } = stage();
    connect().drop(code, "because");
    assert.equal(heard.states.at(-1).name, name, String(code));
    assert.equal(isFinal(code), name === "closed", String(code));
  }
});

test("a permanent error of connect is final, a temporary one is not", () => {
  for (const [error, name] of [[{ code: 103, message: "no" }, "closed"], [{ code: 100, message: "later", temporary: true }, "waiting"]]) {
    const { client, heard } = stage();
    client.connect();
    const socket = FakeSocket.all.at(-1);
    socket.onopen();
    socket.say({ id: socket.sent[0].id, error });
    assert.equal(heard.states.at(-1).name, name);
  }
});

test("the events of a socket that was given up change nothing", () => {
  const { heard, connect, fire } = stage();
  const first = connect();
  first.drop(3000);
  fire();
  connect();
  first.drop(3500, "late");
  assert.equal(heard.states.at(-1).name, "connected");
});

test("waits grow to a cap, and chance spreads them", () => {
  assert.deepEqual([0, 1, 2, 10, 99].map((attempt) => backoffMs(attempt, () => 1)), [500, 1000, 2000, 15_000, 15_000]);
  assert.equal(backoffMs(5, () => 0), 0);
});
