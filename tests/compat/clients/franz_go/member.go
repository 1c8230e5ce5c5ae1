package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// member is a member of a group: arguments BOOTSTRAP TOPIC GROUP ASSIGNOR [INSTANCE], and the lines that
// group_member.py says.
func member(arguments []string) error {
	partitions := func(of map[string][]int32) string {
		var numbers []int
		for _, one := range of[arguments[1]] {
			numbers = append(numbers, int(one))
		}
		sort.Ints(numbers)
		var words []string
		for _, one := range numbers {
			words = append(words, strconv.Itoa(one))
		}
		return strings.Join(words, ",")
	}
	balancers := map[string]kgo.GroupBalancer{
		"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(),
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(arguments[0]), kgo.ConsumeTopics(arguments[1]), kgo.ConsumerGroup(arguments[2]),
		kgo.Balancers(balancers[arguments[3]]), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, of map[string][]int32) {
			fmt.Println("assigned", partitions(of))
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, of map[string][]int32) {
			fmt.Println("revoked", partitions(of))
		}),
	}
	if len(arguments) > 4 {
		options = append(options, kgo.InstanceID(arguments[4]))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(stop)
	}()
	for {
		select {
		case <-stop:
			client.Close()
			return nil
		default:
		}
		poll, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		records := client.PollRecords(poll, 20).Records()
		cancel()
		if len(records) == 0 {
			continue
		}
		line, ends := "seen", map[int32]int64{}
		for _, record := range records {
			line += fmt.Sprintf(" %d:%d", record.Partition, record.Offset)
			ends[record.Partition] = record.Offset + 1
		}
		fmt.Println(line)
		if err := client.CommitRecords(context.Background(), records...); err != nil {
			fmt.Println("uncommitted", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		line = "committed"
		for partition, end := range ends {
			line += fmt.Sprintf(" %d:%d", partition, end)
		}
		fmt.Println(line)
	}
}
