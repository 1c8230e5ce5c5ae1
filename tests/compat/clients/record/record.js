// What kafkajs asks about groups and administration: record.js BOOTSTRAP TOPIC.
'use strict'

const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, topic] = process.argv.slice(2)
const groupId = `group-${topic}`
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [bootstrap], logLevel: logLevel.NOTHING })

// What a broker refuses is recorded too.
async function call(name, work) {
  try {
    console.log(name, JSON.stringify(await work()))
  } catch (error) {
    console.log(name, String(error))
  }
}

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  const configEntries = [{ name: 'retention.ms', value: '1000000' }]
  await call('createTopics', () => admin.createTopics({ topics: [{ topic, numPartitions: 2, configEntries }], waitForLeaders: false }))
  await new Promise((resolve) => setTimeout(resolve, 500))
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic, messages: [{ partition: 0, value: 'value' }] })
  await producer.disconnect()
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 300 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await new Promise((resolve) => {
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ message, heartbeat }) => {
        await heartbeat()
        await consumer.commitOffsets([{ topic, partition: 0, offset: String(Number(message.offset) + 1), metadata: 'noted' }])
        setTimeout(resolve, 1500)
      },
    })
  })
  await call('describeGroups', () => admin.describeGroups([groupId]))
  await consumer.disconnect()
  await call('createPartitions', () => admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }))
  const resource = { type: 2, name: topic }
  const changed = [{ name: 'max.message.bytes', value: '100000' }]
  await call('alterConfigs', () => admin.alterConfigs({ resources: [{ ...resource, configEntries: changed }] }))
  await call('describeConfigs', () => admin.describeConfigs({ resources: [resource] }))
  await call('listGroups', () => admin.listGroups())
  await call('fetchOffsets', () => admin.fetchOffsets({ groupId, topics: [topic] }))
  await call('setOffsets', () => admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '0' }] }))
  await call('deleteGroups', () => admin.deleteGroups([groupId]))
  await call('deleteTopicRecords', () => admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] }))
  await call('listPartitionReassignments', () => admin.listPartitionReassignments({}))
  await call('describeAcls', () =>
    admin.describeAcls({ resourceType: 1, resourcePatternType: 1, operation: 1, permissionType: 1 }))
  await call('describeCluster', () => admin.describeCluster())
  await call('deleteTopics', () => admin.deleteTopics({ topics: [topic] }))
  await admin.disconnect()
}

main().then(() => process.exit(0), (error) => {
  console.log(String(error))
  process.exit(1)
})
