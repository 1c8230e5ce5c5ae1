package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// fetched counts the bytes of Fetch responses by node.
type fetched struct {
	mutex sync.Mutex
	bytes map[int32]int
}

// OnBrokerRead is called with each response.
func (f *fetched) OnBrokerRead(meta kgo.BrokerMetadata, key int16, bytes int, _, _ time.Duration, _ error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if key == 1 {
		f.bytes[meta.NodeID] += bytes
	}
}

// line is what a reader says of it.
func (f *fetched) line() string {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	var words []string
	for node, bytes := range f.bytes {
		words = append(words, fmt.Sprintf(" %d:%d", node, bytes))
	}
	sort.Strings(words)
	line := "received"
	for _, word := range words {
		line += word
	}
	return line
}

// rackReader is a consumer in a rack: arguments BOOTSTRAP TOPIC PARTITIONS RACK, and the lines that rack_reader.py says.
func rackReader(arguments []string) error {
	partitions, err := strconv.Atoi(arguments[2])
	if err != nil {
		return err
	}
	starts := map[int32]kgo.Offset{}
	for partition := 0; partition < partitions; partition++ {
		starts[int32(partition)] = kgo.NewOffset().At(0)
	}
	counts := &fetched{bytes: map[int32]int{}}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(arguments[0], ",")...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{arguments[1]: starts}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.Rack(arguments[3]),
		// It leaves a follower that is down only then; half an hour is the default.
		kgo.RecheckPreferredReplicaInterval(2*time.Second),
		kgo.WithHooks(counts),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	before := ""
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		poll, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		records := client.PollRecords(poll, 100).Records()
		cancel()
		line := "seen"
		for _, record := range records {
			line += fmt.Sprintf(" %d:%d", record.Partition, record.Offset)
		}
		if len(records) > 0 {
			fmt.Println(line)
		}
		if line := counts.line(); line != before {
			fmt.Println(line)
			before = line
		}
	}
}
