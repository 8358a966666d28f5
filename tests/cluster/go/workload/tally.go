package main

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// As many outcomes are kept with all they say; the others are counted.
const kept = 20

// Outcome is what was not as expected.
type Outcome struct {
	Time    time.Time `json:"time"`
	Request string    `json:"request"`
	Kind    string    `json:"kind"`
	Status  int       `json:"status"`
	Body    string    `json:"body"`
	Error   string    `json:"error"`
}

// Result is what a load prints.
type Result struct {
	Seconds float64        `json:"seconds"`
	Sent    int            `json:"sent"`
	Bad     map[string]int `json:"bad"`
	First   []Outcome      `json:"first"`
	// Milliseconds of half, of 99 of 100, and of all requests.
	Half    float64 `json:"half"`
	Most    float64 `json:"most"`
	Longest float64 `json:"longest"`
}

// Tally counts the requests of all workers.
type Tally struct {
	lock  sync.Mutex
	began time.Time
	times []time.Duration
	bad   map[string]int
	first []Outcome
}

func newTally() *Tally {
	return &Tally{began: time.Now(), bad: map[string]int{}, first: []Outcome{}}
}

func (t *Tally) add(outcome *Outcome, took time.Duration) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.times = append(t.times, took)
	if outcome == nil {
		return
	}
	t.bad[outcome.Kind]++
	if len(t.first) < kept {
		if len(outcome.Body) > 300 {
			outcome.Body = outcome.Body[:300]
		}
		t.first = append(t.first, *outcome)
	}
}

func (t *Tally) result() Result {
	t.lock.Lock()
	defer t.lock.Unlock()
	result := Result{
		Seconds: time.Since(t.began).Seconds(),
		Sent:    len(t.times),
		Bad:     maps.Clone(t.bad),
		First:   slices.Clone(t.first),
	}
	if len(t.times) > 0 {
		sorted := slices.Sorted(slices.Values(t.times))
		at := func(share float64) float64 {
			took := sorted[int(share*float64(len(sorted)-1))]
			return float64(took.Microseconds()) / 1000
		}
		result.Half, result.Most, result.Longest = at(0.5), at(0.99), at(1)
	}
	return result
}
