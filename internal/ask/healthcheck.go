package ask

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
)

// The questions of a health check, and the pages that answer them.
var questions = []struct{ word, page string }{
	{"bound", "/healthz"},
	{"startup", "/startupz"},
	{"ready", "/readyz"},
	{"live", "/livez"},
}

// AnswerTime is how long podnotify has to answer a health check. It is less than
// platforms give the check (compose examples: 3 s, charts: 5 s): a check that the
// platform cuts short is a no, and could not forgive anything.
const AnswerTime = 2 * time.Second

// Check is one health check.
type Check struct {
	Question string        // bound, startup, ready or live
	Service  string        // "": all of them
	Address  string        // "": that of the environment, else DefaultAddress
	Wait     time.Duration // ask again for so long until the answer is yes
	FailOpen bool          // count it as yes if podnotify refuses, resets or does not answer in time
}

// Run asks until the answer is yes or Wait is over, and once at least. variable
// is the value of PODNOTIFY_ADDRESS. line is the last answer, without a line
// end, "" if there was none; err says why not.
func (c Check) Run(variable string) (line string, yes bool, err error) {
	path, err := c.page()
	if err != nil {
		return "", false, err
	}
	a, err := New(c.Address, variable)
	if err != nil {
		return "", false, err
	}
	if c.Wait < 0 {
		return "", false, errors.New("cannot wait for " + c.Wait.String() + ": is less than nothing; leave out --wait to ask once")
	}
	a.time = AnswerTime // each question has its own, so that the first is not cut short
	ctx, cancel := context.WithTimeout(context.Background(), c.Wait)
	defer cancel()
	var p Pause
	for {
		code, body, err := a.Get(context.Background(), path)
		if err == nil && code == 200 || !p.Wait(ctx) {
			return c.verdict(code, body, err)
		}
	}
}

func (c Check) page() (string, error) {
	for _, q := range questions {
		if q.word != c.Question {
			continue
		}
		if q.word == "bound" && c.Service != "" {
			return "", errors.New("cannot ask for bound of a service: it is podnotify's own health; leave out --service")
		}
		return Page(q.page, c.Service), nil
	}
	return "", errors.New("cannot ask for " + strconv.Quote(c.Question) + ": is not known; write bound, startup, ready or live, and a service as --service NAME")
}

// verdict turns the last answer into a line and yes or no.
func (c Check) verdict(code int, body string, err error) (line string, yes bool, _ error) {
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !c.FailOpen || !ok || !e.Open() {
			return "", false, err
		}
		return "ok: podnotify at " + e.Base + " does not answer (" + e.Reason() + "), which --fail-open counts as yes", true, nil
	}
	line = Line(body)
	if strings.TrimSpace(line) == "" {
		line = "HTTP status " + strconv.Itoa(code)
	}
	return line, code == 200, nil
}
