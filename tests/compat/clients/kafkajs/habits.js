// The habits of kafkajs: it says "ready" and their names, then runs the one that a line NAME BOOTSTRAP tells (see ../habit.py).
'use strict'

const assert = require('assert')
const readline = require('readline')
const { CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')

const DEADLINE_MS = 30_000

class Place {
  constructor(bootstrap, prefix) {
    this.prefix = prefix
    this.number = 0
    this.opened = []
    this.kafka = new Kafka({ clientId: 'habits', brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 20 } })
  }

  name(word) {
    return `${this.prefix}-${word}-${++this.number}`
  }

  async admin() {
    return this.connected(this.kafka.admin())
  }

  async producer(settings = {}) {
    return this.connected(this.kafka.producer(settings))
  }

  async connected(client) {
    await client.connect()
    this.opened.push(client)
    return client
  }

  async topic(numPartitions, configEntries = []) {
    const topic = this.name('topic')
    const admin = await this.admin()
    await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false })
    await until('all partitions are led', async () => {
      try {
        const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
        return topics[0].partitions.length === numPartitions && topics[0].partitions.every(one => one.leader === 1)
      } catch {
        return false
      }
    })
    return topic
  }

  /** A member of a group that notes what it reads. */
  async member(groupId, topics, run = {}, settings = {}) {
    const consumer = await this.connected(this.kafka.consumer({ groupId, heartbeatInterval: 100, maxWaitTimeInMs: 50, ...settings }))
    const seen = []
    const joins = []
    consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => joins.push(payload))
    await consumer.subscribe({ topics, fromBeginning: true })
    await consumer.run({
      eachMessage: async ({ topic, partition, message }) => {
        seen.push({ topic, partition, offset: Number(message.offset), value: message.value && message.value.toString(), message })
      },
      ...run,
    })
    return { consumer, seen, joins }
  }

  async close() {
    for (const client of this.opened.reverse()) await client.disconnect()
  }
}

async function until(what, holds) {
  const deadline = Date.now() + DEADLINE_MS
  for (;;) {
    const result = await holds()
    if (result) return result
    if (Date.now() > deadline) throw new Error(`${what}: not within ${DEADLINE_MS} ms`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

const messages = (first, end, more = {}) =>
  Array.from({ length: end - first }, (_, i) => ({ value: String(first + i), ...more }))
const values = seen => seen.map(one => Number(one.value)).sort((a, b) => a - b)
const range = (first, end) => Array.from({ length: end - first }, (_, i) => first + i)

const HABITS = {
  'producer sends and reads back': async place => {
    const topic = await place.topic(1)
    const producer = await place.producer()
    const sent = await producer.send({ topic, acks: -1, messages: messages(0, 50, { key: 'key', headers: { trace: 'a' } }) })
    assert.deepStrictEqual([sent[0].partition, sent[0].baseOffset, sent[0].errorCode], [0, '0', 0])
    const { seen } = await place.member(place.name('group'), [topic])
    await until('all are read', () => seen.length >= 50)
    assert.deepStrictEqual(seen.map(one => Number(one.value)), range(0, 50))
    assert.strictEqual(seen[7].message.key.toString(), 'key')
    assert.strictEqual(seen[7].message.headers.trace.toString(), 'a')
  },
  'producer sends a batch for several topics compressed by gzip': async place => {
    const topics = [await place.topic(1), await place.topic(2)]
    const producer = await place.producer({ idempotent: true })
    await producer.sendBatch({
      compression: CompressionTypes.GZIP,
      topicMessages: topics.map((topic, i) => ({ topic, messages: messages(i * 100, i * 100 + 40) })),
    })
    const { seen } = await place.member(place.name('group'), topics)
    await until('all are read', () => seen.length >= 80)
    for (const [i, topic] of topics.entries()) {
      assert.deepStrictEqual(values(seen.filter(one => one.topic === topic)), range(i * 100, i * 100 + 40))
    }
  },
  'producer partitions by a function of its own': async place => {
    const topic = await place.topic(3)
    const producer = await place.producer({ createPartitioner: () => ({ message }) => Number(message.value) % 3 })
    await producer.send({ topic, messages: messages(0, 30) })
    const { seen } = await place.member(place.name('group'), [topic])
    await until('all are read', () => seen.length >= 30)
    for (const one of seen) assert.strictEqual(one.partition, Number(one.value) % 3)
  },
  'consumer commits automatically and the next goes on': async place => {
    const topic = await place.topic(2)
    const groupId = place.name('group')
    const producer = await place.producer()
    await producer.send({ topic, messages: messages(0, 40) })
    const first = await place.member(groupId, [topic], { autoCommitThreshold: 1 })
    await until('all are read', () => first.seen.length >= 40)
    const admin = await place.admin()
    await until('all is committed', async () => {
      const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
      return committed.partitions.reduce((sum, one) => sum + Math.max(0, Number(one.offset)), 0) === 40
    })
    await first.consumer.disconnect()
    await producer.send({ topic, messages: messages(40, 50) })
    const second = await place.member(groupId, [topic])
    await until('the rest is read', () => second.seen.length >= 10)
    assert.deepStrictEqual(values(second.seen), range(40, 50))
  },
  'consumer commits given offsets': async place => {
    const topic = await place.topic(1)
    const groupId = place.name('group')
    const producer = await place.producer()
    await producer.send({ topic, messages: messages(0, 20) })
    const first = await place.member(groupId, [topic], { autoCommit: false })
    await until('all are read', () => first.seen.length >= 20)
    await first.consumer.commitOffsets([{ topic, partition: 0, offset: '12', metadata: 'by hand' }])
    const admin = await place.admin()
    const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
    assert.deepStrictEqual(committed.partitions.map(({ offset, metadata }) => [offset, metadata]), [['12', 'by hand']])
    await first.consumer.disconnect()
    const second = await place.member(groupId, [topic])
    await until('the rest is read', () => second.seen.length >= 8)
    assert.deepStrictEqual(values(second.seen), range(12, 20))
  },
  'consumer seeks and pauses and resumes': async place => {
    const topic = await place.topic(1)
    const producer = await place.producer()
    await producer.send({ topic, messages: messages(0, 20) })
    const { consumer, seen } = await place.member(place.name('group'), [topic])
    await until('all are read', () => seen.length >= 20)
    consumer.seek({ topic, partition: 0, offset: '15' })
    await until('five are read again', () => seen.length >= 25)
    assert.deepStrictEqual(values(seen.slice(20)), range(15, 20))
    consumer.pause([{ topic, partitions: [0] }])
    assert.strictEqual(consumer.paused().length, 1)
    await producer.send({ topic, messages: messages(20, 25) })
    consumer.resume([{ topic, partitions: [0] }])
    await until('the rest is read', () => seen.length >= 30)
    assert.deepStrictEqual(values(seen.slice(25)), range(20, 25))
  },
  'consumers share partitions': async place => {
    const topic = await place.topic(4)
    const groupId = place.name('group')
    const members = [await place.member(groupId, [topic]), await place.member(groupId, [topic])]
    const owned = one => (one.joins.length ? one.joins[one.joins.length - 1].memberAssignment[topic] || [] : [])
    await until('both own two', () => members.every(one => owned(one).length === 2))
    assert.deepStrictEqual(members.flatMap(owned).sort(), [0, 1, 2, 3])
    const producer = await place.producer()
    await producer.send({ topic, messages: messages(0, 40).map((one, i) => ({ ...one, partition: i % 4 })) })
    await until('all are read', () => members[0].seen.length + members[1].seen.length >= 40)
    assert.deepStrictEqual(values(members.flatMap(one => one.seen)), range(0, 40))
    await members[1].consumer.disconnect()
    await until('the other owns all', () => owned(members[0]).length === 4)
  },
  'admin works on topics and offsets and records': async place => {
    const topic = await place.topic(1, [{ name: 'retention.ms', value: '123456' }])
    const admin = await place.admin()
    assert((await admin.listTopics()).includes(topic))
    const described = await admin.describeConfigs({
      includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ['retention.ms'] }],
    })
    assert.strictEqual(described.resources[0].configEntries[0].configValue, '123456')
    await admin.alterConfigs({
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '654321' }] }],
    })
    await admin.createPartitions({ topicPartitions: [{ topic, count: 2 }] })
    await until('both are led', async () => {
      const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
      return topics[0].partitions.length === 2 && topics[0].partitions.every(one => one.leader === 1)
    })
    const producer = await place.producer()
    await producer.send({ topic, messages: messages(0, 20).map((one, i) => ({ ...one, partition: i % 2 })) })
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
    const offsets = await admin.fetchTopicOffsets(topic)
    assert.deepStrictEqual(offsets.map(one => [one.partition, one.low, one.high]).sort(), [[0, '4', '10'], [1, '0', '10']])
    await admin.deleteTopics({ topics: [topic] })
    await until('it is gone', async () => !(await admin.listTopics()).includes(topic))
  },
  'admin works on groups': async place => {
    const topic = await place.topic(1)
    const groupId = place.name('group')
    const producer = await place.producer()
    await producer.send({ topic, messages: messages(0, 10) })
    const { consumer, seen } = await place.member(groupId, [topic], { autoCommit: false })
    await until('all are read', () => seen.length >= 10)
    const admin = await place.admin()
    assert((await admin.listGroups()).groups.some(one => one.groupId === groupId))
    const { groups } = await admin.describeGroups([groupId])
    assert.deepStrictEqual([groups[0].state, groups[0].members.length], ['Stable', 1])
    await consumer.disconnect()
    await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '3' }] })
    assert.strictEqual((await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions[0].offset, '3')
    await admin.resetOffsets({ groupId, topic, earliest: false })
    assert.strictEqual((await admin.fetchOffsets({ groupId, topics: [topic], resolveOffsets: true }))[0].partitions[0].offset, '10')
    await admin.deleteGroups([groupId])
    assert(!(await admin.listGroups()).groups.some(one => one.groupId === groupId))
  },
}

async function main() {
  process.stdout.write(`ready ${Object.keys(HABITS).join(',')}\n`)
  let number = 0
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [habit, bootstrap] = line.split('\t')
    // A process that starts again after a failure must not meet the topics of the one before.
    const place = new Place(bootstrap, `kafkajs-${process.pid}-${number++}`)
    try {
      await HABITS[habit](place)
      await place.close()
      process.stdout.write('ok\n')
    } catch (error) {
      process.stdout.write(`error ${String(error.stack || error).replace(/\s+/g, ' ').slice(0, 1_500)}\n`)
    }
  }
}

main()
