// Connects the official JavaScript SDK to a gateway and writes every event as one JSON line.
//
//     node listen.mjs URL TOKEN [CHANNEL...]      ends when stdin does
//
// A line on stdin, {"id", "method", "args"}, calls that method of the client; the answer is an event.
// CHANNEL_TOKENS in the environment, a JSON list, are given to the subscriptions one after another.
import { createInterface } from 'node:readline';
import { Centrifuge } from 'centrifuge';

const [url, token, ...channels] = process.argv.slice(2);
const channelTokens = JSON.parse(process.env.CHANNEL_TOKENS ?? '[]');
const options = { minResubscribeDelay: 20, maxResubscribeDelay: 500, joinLeave: true };
if (channelTokens.length) options.getToken = async () => channelTokens.length > 1 ? channelTokens.shift() : channelTokens[0];
const say = (event, more = {}) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
const describe = (context) => ({
  channel: context.channel,
  wasRecovering: context.wasRecovering ?? false,
  recovered: context.recovered ?? false,
  code: context.code,
  reason: context.reason,
});

const client = new Centrifuge(url, { token, minReconnectDelay: 20, maxReconnectDelay: 500 });
for (const event of ['connecting', 'connected', 'disconnected', 'subscribed', 'unsubscribed', 'error']) {
  client.on(event, (context) => say(event, describe(context)));
}
client.on('publication', ({ channel, offset, data, info }) => say('publication', { channel, offset, data, user: info?.user }));
for (const event of ['join', 'leave']) {
  client.on(event, ({ channel, info }) => say(event, { channel, user: info.user }));
}
for (const channel of channels) {
  const subscription = client.newSubscription(channel, options);
  for (const event of ['subscribing', 'subscribed', 'unsubscribed', 'error']) {
    subscription.on(event, (context) => say(`sub-${event}`, describe(context)));
  }
  subscription.on('publication', ({ channel, offset, data, info }) => {
    say('publication', { channel, offset, data, user: info?.user });
  });
  for (const event of ['join', 'leave']) {
    subscription.on(event, ({ channel, info }) => say(event, { channel, user: info.user }));
  }
  subscription.subscribe();
}
client.connect();
const METHODS = {
  publish: async (channel, data) => (await client.publish(channel, data), {}),
  presence: async (channel) => Object.values((await client.presence(channel)).clients).map(({ user }) => user),
  presence_stats: async (channel) => {
    const { numClients, numUsers } = await client.presenceStats(channel);
    return [numClients, numUsers];
  },
  rpc: async (method, data) => (await client.rpc(method, data)).data,
};
const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const { id, method, args } = JSON.parse(line);
  try {
    say('answer', { id, result: await METHODS[method](...args) });
  } catch (error) {
    say('answer', { id, error: error.code });
  }
});
lines.on('close', () => {
  client.disconnect();
  process.exit(0);
});
