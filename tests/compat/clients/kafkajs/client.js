/**
 * kafkajs as a writer of the data set: the same commands, data file and notes as the Python clients (see ../command.py
 * and ../../records.py). It reads only in groups, so it does not read here.
 *
 * Header values that are null become empty ones, because kafkajs cannot send null, and a header's values stand together
 * where its name first stands, because kafkajs takes headers as an object.
 */
'use strict'

const fs = require('fs')
const readline = require('readline')
const { CompressionCodecs, CompressionTypes, Kafka, logLevel } = require('kafkajs')

const TYPES = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
  zstd: CompressionTypes.ZSTD,
}
/** A batch stays below the topic's message.max.bytes, a request well below socket.request.max.bytes. */
const PARTITION_BYTES_MAX = 700_000
const REQUEST_BYTES_MAX = 8_000_000

/** What each codec beyond kafkajs's own comes from; a package that is not installed makes its codec unavailable. */
const CODECS = {
  snappy: () => require('kafkajs-snappy'),
  lz4: () => new (require('@2l/kafkajs-lz4'))().codec,
  zstd: () => {
    const zstd = require('@mongodb-js/zstd')
    return () => ({
      compress: encoder => zstd.compress(encoder.buffer, 3),
      decompress: buffer => zstd.decompress(buffer),
    })
  },
}

function availableCodecs() {
  const available = ['none', 'gzip']
  for (const [name, load] of Object.entries(CODECS)) {
    try {
      CompressionCodecs[TYPES[name]] = load()
      available.push(name)
    } catch (error) {
      console.error(`no ${name}: ${error.message.split('\n')[0]}`)
    }
  }
  return available
}

/** The records of a data file as kafkajs takes them, each with its place. */
function* messages(path, partitions) {
  const data = fs.readFileSync(path)
  let at = 0
  const length = () => {
    at += 4
    return data.readInt32BE(at - 4)
  }
  const nullable = () => {
    const bytes = length()
    if (bytes < 0) return null
    at += bytes
    return data.subarray(at - bytes, at)
  }
  for (let i = 0; at < data.length; i++) {
    const start = at
    length()
    const timestamp = data.readBigInt64BE(at).toString()
    at += 8
    const key = nullable()
    const value = nullable()
    const headers = {}
    for (let left = length(); left > 0; left--) {
      const name = nullable().toString()
      headers[name] = (headers[name] || []).concat([nullable() || Buffer.alloc(0)])
    }
    yield { message: { partition: i % partitions, timestamp, key, value, headers }, bytes: at - start }
  }
}

/** Sends the messages in one request; the offsets they were given, in their order. */
async function send(producer, topic, codec, batch) {
  const results = await producer.send({ topic, acks: -1, compression: TYPES[codec], messages: batch })
  const nexts = new Map()
  for (const { partition, errorCode, baseOffset } of results) {
    if (errorCode) throw new Error(`partition ${partition}: error ${errorCode}`)
    nexts.set(partition, BigInt(baseOffset))
  }
  return batch.map(({ partition }) => {
    const offset = nexts.get(partition)
    if (offset === undefined) throw new Error(`partition ${partition} has no acknowledgement`)
    nexts.set(partition, offset + 1n)
    return `${partition} ${offset}\n`
  })
}

async function write(bootstrap, topic, partitions, codec, path, out) {
  const kafka = new Kafka({ clientId: 'compat', brokers: [bootstrap], logLevel: logLevel.ERROR })
  const producer = kafka.producer({ idempotent: true, allowAutoTopicCreation: false })
  await producer.connect()
  const notes = []
  let batch = []
  let requestBytes = 0
  let partitionBytes = new Map()
  const flush = async () => {
    if (batch.length) notes.push(...(await send(producer, topic, codec, batch)))
    batch = []
    requestBytes = 0
    partitionBytes = new Map()
  }
  try {
    for (const { message, bytes } of messages(path, Number(partitions))) {
      const inPartition = partitionBytes.get(message.partition) || 0
      if (inPartition + bytes > PARTITION_BYTES_MAX || requestBytes + bytes > REQUEST_BYTES_MAX) await flush()
      partitionBytes.set(message.partition, (partitionBytes.get(message.partition) || 0) + bytes)
      requestBytes += bytes
      batch.push(message)
    }
    await flush()
  } finally {
    await producer.disconnect()
  }
  fs.writeFileSync(out, notes.join(''))
}

async function main() {
  process.stdout.write(`ready ${availableCodecs().join(',')}\n`)
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, ...words] = line.split('\t')
    try {
      if (command !== 'write') throw new Error(`no such command: ${command}`)
      await write(...words)
      process.stdout.write('ok\n')
    } catch (error) {
      process.stdout.write(`error ${String(error.stack || error).replace(/\s+/g, ' ').slice(0, 2_000)}\n`)
    }
  }
}

main()
