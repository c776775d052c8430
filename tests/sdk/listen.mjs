// Connects the official JavaScript SDK to a gateway and writes every event as one JSON line.
//
//     node listen.mjs URL TOKEN [CHANNEL...]      ends when stdin does
import { Centrifuge } from 'centrifuge';

const [url, token, ...channels] = process.argv.slice(2);
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
client.on('publication', ({ channel, offset, data }) => say('publication', { channel, offset, data }));
for (const channel of channels) {
  const subscription = client.newSubscription(channel, { minResubscribeDelay: 20, maxResubscribeDelay: 500 });
  for (const event of ['subscribing', 'subscribed', 'unsubscribed', 'error']) {
    subscription.on(event, (context) => say(`sub-${event}`, describe(context)));
  }
  subscription.on('publication', ({ channel, offset, data }) => say('publication', { channel, offset, data }));
  subscription.subscribe();
}
client.connect();
process.stdin.on('end', () => client.disconnect());
process.stdin.on('close', () => process.exit(0));
process.stdin.resume();
