// franz-go as a writer and a reader of the data set: the same commands, data file and notes as the Python clients
// (see ../command.py and ../../records.py).
package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	stall        = 60 * time.Second
	deadline     = 10 * time.Minute
	bufferedMax  = 20_000
	bufferedSize = 64 << 20
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

// nullable reads a length and that many bytes; -1 says nil.
func nullable(data *bufio.Reader) ([]byte, error) {
	length, err := integer(data)
	if err != nil || length < 0 {
		return nil, err
	}
	bytes := make([]byte, length)
	_, err = io.ReadFull(data, bytes)
	return bytes, err
}

func integer(data *bufio.Reader) (int32, error) {
	var raw [4]byte
	_, err := io.ReadFull(data, raw[:])
	return int32(binary.BigEndian.Uint32(raw[:])), err
}

// next is the next record of the data file, or io.EOF at its end.
func next(data *bufio.Reader) (*kgo.Record, error) {
	if _, err := integer(data); err != nil {
		return nil, err
	}
	var raw [8]byte
	if _, err := io.ReadFull(data, raw[:]); err != nil {
		return nil, err
	}
	record := &kgo.Record{Timestamp: time.UnixMilli(int64(binary.BigEndian.Uint64(raw[:])))}
	var err error
	if record.Key, err = nullable(data); err != nil {
		return nil, err
	}
	if record.Value, err = nullable(data); err != nil {
		return nil, err
	}
	count, err := integer(data)
	for ; err == nil && count > 0; count-- {
		var name, value []byte
		if name, err = nullable(data); err == nil {
			value, err = nullable(data)
		}
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: string(name), Value: value})
	}
	return record, err
}

func write(bootstrap, topic string, partitions int, codec, path, out string) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codecs[codec]),
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(bufferedMax),
		kgo.MaxBufferedBytes(bufferedSize),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()

	var sent []*kgo.Record
	var failure error
	var once sync.Once
	data := bufio.NewReaderSize(file, 1<<20)
	for i := 0; ; i++ {
		record, err := next(data)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		record.Topic, record.Partition = topic, int32(i%partitions)
		// The place is all that is needed of a record once it is acknowledged, so its bytes may go.
		sent = append(sent, record)
		client.Produce(ctx, record, func(record *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failure = fmt.Errorf("record %d: %w", i, err) })
			}
			record.Key, record.Value, record.Headers = nil, nil, nil
		})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	return note(out, func(notes io.Writer) {
		for _, record := range sent {
			fmt.Fprintf(notes, "%d %d\n", record.Partition, record.Offset)
		}
	})
}

// note writes a file by way of a buffer.
func note(path string, fill func(io.Writer)) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	notes := bufio.NewWriterSize(file, 1<<18)
	fill(notes)
	if err := notes.Flush(); err != nil {
		return err
	}
	return file.Close()
}

// ends asks for each partition's end.
func ends(ctx context.Context, client *kgo.Client, topic string, partitions int) (map[int32]int64, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = topic
	for partition := 0; partition < partitions; partition++ {
		one := kmsg.NewListOffsetsRequestTopicPartition()
		one.Partition, one.Timestamp = int32(partition), -1
		asked.Partitions = append(asked.Partitions, one)
	}
	request.Topics = append(request.Topics, asked)
	left := map[int32]int64{}
	for _, shard := range client.RequestSharded(ctx, request) {
		if shard.Err != nil {
			return nil, shard.Err
		}
		for _, answered := range shard.Resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, one := range answered.Partitions {
				if one.ErrorCode != 0 {
					return nil, fmt.Errorf("the end of partition %d: error %d", one.Partition, one.ErrorCode)
				}
				if one.Offset > 0 {
					left[one.Partition] = one.Offset
				}
			}
		}
	}
	return left, nil
}

func read(bootstrap, topic string, partitions int, out string) error {
	starts := map[int32]kgo.Offset{}
	for partition := 0; partition < partitions; partition++ {
		starts[int32(partition)] = kgo.NewOffset().At(0)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: starts}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	left, err := ends(ctx, client, topic, partitions)
	if err != nil {
		return err
	}
	notes := make([]*bufio.Writer, partitions)
	for partition := range notes {
		file, err := os.Create(fmt.Sprintf("%s.%d", out, partition))
		if err != nil {
			return err
		}
		defer file.Close()
		notes[partition] = bufio.NewWriterSize(file, 1<<16)
	}
	sha := sha1.New()
	for len(left) > 0 {
		poll, stop := context.WithTimeout(ctx, stall)
		fetches := client.PollFetches(poll)
		stop()
		if errors := fetches.Errors(); len(errors) > 0 {
			return fmt.Errorf("partition %d: %w; still to be read to their ends: %v", errors[0].Partition, errors[0].Err, left)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			fmt.Fprintf(notes[record.Partition], "%d %d %s\n", record.Offset, record.Timestamp.UnixMilli(), digest(sha, record))
			if end, due := left[record.Partition]; due && record.Offset+1 >= end {
				delete(left, record.Partition)
			}
		})
	}
	for _, writer := range notes {
		if err := writer.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func digest(sha hash.Hash, record *kgo.Record) string {
	sha.Reset()
	field(sha, record.Key)
	field(sha, record.Value)
	length(sha, len(record.Headers))
	for _, header := range record.Headers {
		field(sha, []byte(header.Key))
		field(sha, header.Value)
	}
	return hex.EncodeToString(sha.Sum(nil))
}

func field(sha hash.Hash, bytes []byte) {
	if bytes == nil {
		length(sha, -1)
		return
	}
	length(sha, len(bytes))
	sha.Write(bytes)
}

func length(sha hash.Hash, n int) {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], uint32(int32(n)))
	sha.Write(raw[:])
}

func run(words []string) error {
	switch {
	case words[0] == "write" && len(words) == 7:
		partitions, err := strconv.Atoi(words[3])
		if err != nil {
			return err
		}
		return write(words[1], words[2], partitions, words[4], words[5], words[6])
	case words[0] == "read" && len(words) == 5:
		partitions, err := strconv.Atoi(words[3])
		if err != nil {
			return err
		}
		return read(words[1], words[2], partitions, words[4])
	}
	return fmt.Errorf("no such command: %v", words)
}

func main() {
	programs := map[string]func([]string) error{"member": member, "rack": rackReader}
	if len(os.Args) > 1 && programs[os.Args[1]] != nil {
		if err := programs[os.Args[1]](os.Args[2:]); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
			os.Exit(1)
		}
		fmt.Println("closed")
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "habits" {
		habits()
		return
	}
	fmt.Println("ready none,gzip,snappy,lz4,zstd")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := run(strings.Split(lines.Text(), "\t")); err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok")
		}
	}
}
