package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const habitDeadline = 30 * time.Second

// place is what one habit gets: names of its own, and clients that are closed behind it.
type place struct {
	ctx       context.Context
	bootstrap string
	prefix    string
	number    int
	opened    []*kgo.Client
}

func (p *place) name(word string) string {
	p.number++
	return fmt.Sprintf("%s-%s-%d", p.prefix, word, p.number)
}

func (p *place) client(options ...kgo.Opt) (*kgo.Client, error) {
	usual := []kgo.Opt{kgo.SeedBrokers(p.bootstrap), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(50 * time.Millisecond), kgo.HeartbeatInterval(100 * time.Millisecond),
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.MetadataMaxAge(300 * time.Millisecond)}
	client, err := kgo.NewClient(append(usual, options...)...)
	if err == nil {
		p.opened = append(p.opened, client)
	}
	return client, err
}

func (p *place) close() {
	for _, client := range p.opened {
		client.Close()
	}
}

// topicNamed creates a topic.
func (p *place) topicNamed(topic string, partitions int) (string, error) {
	client, err := p.client()
	if err != nil {
		return "", err
	}
	request := kmsg.NewPtrCreateTopicsRequest()
	wanted := kmsg.NewCreateTopicsRequestTopic()
	wanted.Topic, wanted.NumPartitions, wanted.ReplicationFactor = topic, int32(partitions), 1
	request.Topics = append(request.Topics, wanted)
	response, err := request.RequestWith(p.ctx, client)
	if err != nil {
		return "", err
	}
	return topic, kerr.ErrorForCode(response.Topics[0].ErrorCode)
}

func (p *place) topic(partitions int) (string, error) {
	return p.topicNamed(p.name("topic"), partitions)
}

// fill sends the values first to end-1 in one order.
func (p *place) fill(topic string, first, end int) error {
	client, err := p.client(kgo.DefaultProduceTopic(topic))
	if err != nil {
		return err
	}
	var records []*kgo.Record
	for i := first; i < end; i++ {
		records = append(records, &kgo.Record{Value: []byte(strconv.Itoa(i)), Key: []byte("key-" + strconv.Itoa(i))})
	}
	return client.ProduceSync(p.ctx, records...).FirstErr()
}

// readN polls until that many records came; more is an error.
func (p *place) readN(client *kgo.Client, count int) ([]*kgo.Record, error) {
	var all []*kgo.Record
	for len(all) < count {
		fetches := client.PollFetches(p.ctx)
		for _, failed := range fetches.Errors() {
			return nil, fmt.Errorf("%d of %d records: %w", len(all), count, failed.Err)
		}
		all = append(all, fetches.Records()...)
	}
	return all, equal("the number of records", len(all), count)
}

func sorted(records []*kgo.Record) string {
	var all []int
	for _, record := range records {
		value, _ := strconv.Atoi(string(record.Value))
		all = append(all, value)
	}
	sort.Ints(all)
	return fmt.Sprint(all)
}

func span(first, end int) string {
	var all []int
	for i := first; i < end; i++ {
		all = append(all, i)
	}
	return fmt.Sprint(all)
}

func equal(what string, seen, due any) error {
	if seen != due {
		return fmt.Errorf("%s is %v; %v was due", what, seen, due)
	}
	return nil
}

func (p *place) until(what string, holds func() bool) error {
	for !holds() {
		select {
		case <-p.ctx.Done():
			return fmt.Errorf("%s: %w", what, p.ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func sendsWithPromises(p *place) error {
	topic, err := p.topic(2)
	if err != nil {
		return err
	}
	client, err := p.client(kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	var lock sync.Mutex
	var failure error
	for i := 0; i < 100; i++ {
		record := &kgo.Record{Partition: int32(i % 2), Value: []byte(strconv.Itoa(i)),
			Headers: []kgo.RecordHeader{{Key: "n", Value: []byte(strconv.Itoa(i))}}}
		client.Produce(p.ctx, record, func(at *kgo.Record, err error) {
			lock.Lock()
			defer lock.Unlock()
			failure = errors.Join(failure, err, equal("the offset", at.Offset, int64(i/2)))
		})
	}
	if err := client.Flush(p.ctx); err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	reader, err := p.client(kgo.ConsumeTopics(topic))
	if err != nil {
		return err
	}
	records, err := p.readN(reader, 100)
	if err != nil {
		return err
	}
	for _, record := range records {
		if err := equal("the header", string(record.Headers[0].Value), string(record.Value)); err != nil {
			return err
		}
	}
	return equal("what is read", sorted(records), span(0, 100))
}

func compressesBy(codec kgo.CompressionCodec) func(*place) error {
	return func(p *place) error {
		topic, err := p.topic(1)
		if err != nil {
			return err
		}
		client, err := p.client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(20*time.Millisecond))
		if err != nil {
			return err
		}
		var records []*kgo.Record
		for i := 0; i < 200; i++ {
			records = append(records, &kgo.Record{Value: []byte(strconv.Itoa(i)), Timestamp: time.UnixMilli(1_600_000_000_000 + int64(i))})
		}
		if err := client.ProduceSync(p.ctx, records...).FirstErr(); err != nil {
			return err
		}
		reader, err := p.client(kgo.ConsumeTopics(topic))
		if err != nil {
			return err
		}
		seen, err := p.readN(reader, 200)
		if err != nil {
			return err
		}
		for i, record := range seen {
			err := errors.Join(equal("the value", string(record.Value), strconv.Itoa(i)),
				equal("the time", record.Timestamp.UnixMilli(), 1_600_000_000_000+int64(i)))
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// commits has one member commit some records, or mark them, and the next read the others.
func commits(automatic bool) func(*place) error {
	return func(p *place) error {
		topic, err := p.topic(1)
		if err != nil {
			return err
		}
		if err := p.fill(topic, 0, 20); err != nil {
			return err
		}
		group := p.name("group")
		options := []kgo.Opt{kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic)}
		how := kgo.DisableAutoCommit()
		if automatic {
			how = kgo.AutoCommitMarks()
		}
		first, err := p.client(append(options, how)...)
		if err != nil {
			return err
		}
		records, err := p.readN(first, 20)
		if err != nil {
			return err
		}
		if automatic {
			first.MarkCommitRecords(records[:12]...)
			err = first.CommitMarkedOffsets(p.ctx)
		} else {
			err = first.CommitRecords(p.ctx, records[:12]...)
		}
		if err != nil {
			return err
		}
		first.Close()
		second, err := p.client(options...)
		if err != nil {
			return err
		}
		rest, err := p.readN(second, 8)
		if err != nil {
			return err
		}
		return equal("what the next member reads", sorted(rest), span(12, 20))
	}
}

func subscribesByRegex(p *place) error {
	family := p.name("family")
	for _, topic := range []string{family + ".one", "other-" + family} {
		if _, err := p.topicNamed(topic, 1); err != nil {
			return err
		}
		if err := p.fill(topic, 0, 5); err != nil {
			return err
		}
	}
	client, err := p.client(kgo.ConsumerGroup(p.name("group")), kgo.ConsumeRegex(), kgo.ConsumeTopics("^"+family+`\..*`))
	if err != nil {
		return err
	}
	records, err := p.readN(client, 5)
	if err != nil {
		return err
	}
	if _, err := p.topicNamed(family+".two", 1); err != nil {
		return err
	}
	if err := p.fill(family+".two", 5, 9); err != nil {
		return err
	}
	more, err := p.readN(client, 4)
	if err != nil {
		return err
	}
	return equal("what is read", sorted(append(records, more...)), span(0, 9))
}

func sharesCooperatively(p *place) error {
	topic, err := p.topic(4)
	if err != nil {
		return err
	}
	group := p.name("group")
	var lock sync.Mutex
	owned := make([]int, 2)
	revoked := make([]int, 2)
	member := func(at int) (*kgo.Client, error) {
		return p.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(kgo.CooperativeStickyBalancer()),
			kgo.DisableAutoCommit(),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, of map[string][]int32) {
				lock.Lock()
				defer lock.Unlock()
				owned[at] += len(of[topic])
			}),
			kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, of map[string][]int32) {
				lock.Lock()
				defer lock.Unlock()
				owned[at] -= len(of[topic])
				revoked[at] += len(of[topic])
			}))
	}
	owns := func(first, second int) func() bool {
		return func() bool {
			lock.Lock()
			defer lock.Unlock()
			return owned[0] == first && owned[1] == second
		}
	}
	if _, err := member(0); err != nil {
		return err
	}
	if err := p.until("the first owns all", owns(4, 0)); err != nil {
		return err
	}
	second, err := member(1)
	if err != nil {
		return err
	}
	if err := p.until("both own two", owns(2, 2)); err != nil {
		return err
	}
	if err := equal("what the first was to give", revoked[0], 2); err != nil {
		return err
	}
	second.Close()
	return p.until("the first owns all again", func() bool {
		lock.Lock()
		defer lock.Unlock()
		return owned[0] == 4
	})
}

func seeksAndPauses(p *place) error {
	topic, err := p.topic(1)
	if err != nil {
		return err
	}
	if err := p.fill(topic, 0, 20); err != nil {
		return err
	}
	client, err := p.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(5)}}))
	if err != nil {
		return err
	}
	records, err := p.readN(client, 15)
	if err != nil {
		return err
	}
	if err := equal("what is read from 5", sorted(records), span(5, 20)); err != nil {
		return err
	}
	client.PauseFetchPartitions(map[string][]int32{topic: {0}})
	client.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {0: {Epoch: -1, Offset: 17}}})
	client.ResumeFetchPartitions(map[string][]int32{topic: {0}})
	if records, err = p.readN(client, 3); err != nil {
		return err
	}
	return equal("what is read again", sorted(records), span(17, 20))
}

// habits obeys like the other libraries' programs.
func habits() {
	all := map[string]func(*place) error{
		"producer sends with promises":                sendsWithPromises,
		"producer compresses by gzip":                 compressesBy(kgo.GzipCompression()),
		"producer compresses by snappy":               compressesBy(kgo.SnappyCompression()),
		"producer compresses by lz4":                  compressesBy(kgo.Lz4Compression()),
		"producer compresses by zstd":                 compressesBy(kgo.ZstdCompression()),
		"consumer commits records":                    commits(false),
		"consumer commits what it marked":             commits(true),
		"consumer subscribes by a regular expression": subscribesByRegex,
		"consumers share cooperatively":               sharesCooperatively,
		"consumer seeks and pauses and resumes":       seeksAndPauses,
	}
	var names []string
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Println("ready", strings.Join(names, ","))
	lines := bufio.NewScanner(os.Stdin)
	for number := 0; lines.Scan(); number++ {
		words := strings.Split(lines.Text(), "\t")
		ctx, cancel := context.WithTimeout(context.Background(), habitDeadline)
		// A process that starts again after a failure must not meet the topics of the one before.
		place := &place{ctx: ctx, bootstrap: words[1], prefix: fmt.Sprintf("franz-go-%d-%d", os.Getpid(), number)}
		err := all[words[0]](place)
		place.close()
		cancel()
		if err != nil {
			fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok")
		}
	}
}
