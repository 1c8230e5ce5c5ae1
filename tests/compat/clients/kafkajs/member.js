// A member of a group by kafkajs: arguments BOOTSTRAP TOPIC GROUP ASSIGNOR, and the lines that group_member.py says.
// kafkajs has one assignor, a round robin under a name of its own.
'use strict'

const { Kafka, logLevel } = require('kafkajs')

const say = (...words) => process.stdout.write(words.join(' ') + '\n')

async function main() {
  const [bootstrap, topic, groupId] = process.argv.slice(2)
  const kafka = new Kafka({ clientId: 'compat', brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 100 } })
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500 })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    say('assigned', (payload.memberAssignment[topic] || []).sort().join(','))
  })
  consumer.on(consumer.events.REBALANCING, () => say('revoked'))
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
      if (!isRunning() || isStale()) return
      say('seen', ...batch.messages.map((message) => `${batch.partition}:${message.offset}`))
      const offset = (BigInt(batch.lastOffset()) + 1n).toString()
      try {
        await consumer.commitOffsets([{ topic, partition: batch.partition, offset }])
        say('committed', `${batch.partition}:${offset}`)
        resolveOffset(batch.lastOffset())
      } catch (error) {
        say('uncommitted', error.name)
      }
      await heartbeat()
    },
  })
  process.stdin.resume()
  process.stdin.on('end', async () => {
    await consumer.disconnect()
    say('closed')
    process.exit(0)
  })
}

main().catch((error) => {
  say('error', String(error).replace(/\s+/g, ' '))
  process.exit(1)
})
