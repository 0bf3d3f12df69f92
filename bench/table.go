package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// row is one line of the table. A figure that was not taken is NaN.
type row struct {
	what   string
	unit   string
	ours   float64
	ref    float64
	target goal
	note   string
	key    string // in budgets.json
}

// goal is what a row is to reach.
type goal struct {
	ratio   bool // of the ratio, not of our own figure
	atLeast bool
	bound   float64
}

var none = goal{bound: math.NaN()}

func ratioAtLeast(f float64) goal { return goal{true, true, f} }
func ratioAtMost(f float64) goal  { return goal{true, false, f} }
func atMost(f float64) goal       { return goal{false, false, f} }
func atLeast(f float64) goal      { return goal{false, true, f} }

func (g goal) String() string {
	if math.IsNaN(g.bound) {
		return ""
	}
	sign, unit := "<=", ""
	if g.atLeast {
		sign = ">="
	}
	if g.ratio {
		unit = " x"
	}
	return sign + " " + figure(g.bound) + unit
}

func (r *row) ratio() float64 { return r.ours / r.ref }

// reached is "yes", "no", or nothing where there is no goal.
func (r *row) reached() string {
	v := r.ours
	if r.target.ratio {
		v = r.ratio()
	}
	switch {
	case math.IsNaN(r.target.bound) || math.IsNaN(v):
		return ""
	case r.target.atLeast && v >= r.target.bound, !r.target.atLeast && v <= r.target.bound:
		return "yes"
	}
	return "no"
}

// table is all that was measured, in groups.
type table struct {
	machine string
	groups  []group
}

type group struct {
	title string
	rows  []row
	grid  [][]string // a table of its own instead; the first line is the head
	text  []string   // lines below
}

func (t *table) add(title string, rows ...row) *group {
	i := slices.IndexFunc(t.groups, func(g group) bool { return g.title == title })
	if i < 0 {
		t.groups = append(t.groups, group{title: title})
		i = len(t.groups) - 1
	}
	t.groups[i].rows = append(t.groups[i].rows, rows...)
	for _, r := range rows {
		fmt.Fprintf(os.Stderr, "   %-70s %10s %10s %8s %-10s %s\n", r.what+", "+r.unit, figure(r.ours), figure(r.ref), ratioText(&r), r.target, r.reached())
	}
	return &t.groups[i]
}

// figure writes a number with three digits or so.
func figure(f float64) string {
	switch a := math.Abs(f); {
	case math.IsNaN(f):
		return ""
	case a >= 1000:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case a >= 100 || f == math.Trunc(f):
		return strconv.FormatFloat(f, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

func ratioText(r *row) string {
	if math.IsNaN(r.ratio()) || r.ref == 0 {
		return ""
	}
	return strconv.FormatFloat(r.ratio(), 'f', 2, 64)
}

// text is the table in Markdown.
func (t *table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Machine: %s.\n", t.machine)
	for _, g := range t.groups {
		fmt.Fprintf(&b, "\n### %s\n\n", g.title)
		lines := g.grid
		if len(g.rows) > 0 {
			lines = [][]string{{"what", "unit", "podnotify", "reference", "ratio", "target", "reached", ""}}
			for _, r := range g.rows {
				lines = append(lines, []string{r.what, r.unit, figure(r.ours), figure(r.ref), ratioText(&r), r.target.String(), r.reached(), r.note})
			}
		}
		for i, l := range lines {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(l, " | "))
			if i == 0 {
				fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(l)))
			}
		}
		for _, l := range g.text {
			fmt.Fprintf(&b, "\n%s\n", l)
		}
	}
	return b.String()
}

// The table in a document is between these lines.
const (
	tableBegin = "<!-- table: make bench writes it -->\n"
	tableEnd   = "<!-- end of table -->\n"
)

func (t *table) writeTo(file string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		return fmt.Errorf("cannot write the table into %s: its marks are missing", file)
	}
	return os.WriteFile(file, []byte(before+tableBegin+t.text()+tableEnd+after), 0o644)
}

func (t *table) writeJSON(file string) error {
	type line struct {
		Group     string   `json:"group"`
		What      string   `json:"what"`
		Unit      string   `json:"unit"`
		Ours      *float64 `json:"ours,omitempty"`
		Reference *float64 `json:"reference,omitempty"`
		Target    string   `json:"target,omitempty"`
		Reached   string   `json:"reached,omitempty"`
		Note      string   `json:"note,omitempty"`
	}
	type grid struct {
		Group string     `json:"group"`
		Grid  [][]string `json:"grid"`
	}
	number := func(f float64) *float64 {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil
		}
		return &f
	}
	var out struct {
		Machine string `json:"machine"`
		Rows    []line `json:"rows"`
		Grids   []grid `json:"grids"`
	}
	out.Machine = t.machine
	for _, g := range t.groups {
		for _, r := range g.rows {
			out.Rows = append(out.Rows, line{g.title, r.what, r.unit, number(r.ours), number(r.ref), r.target.String(), r.reached(), r.note})
		}
		if g.grid != nil {
			out.Grids = append(out.Grids, grid{g.title, g.grid})
		}
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// withinBudgets compares what does not depend on the machine with what was agreed.
func (t *table) withinBudgets(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	budgets := map[string]float64{}
	if err := json.Unmarshal(text, &budgets); err != nil {
		return fmt.Errorf("cannot read %s: %w", file, err)
	}
	var over []string
	for _, g := range t.groups {
		for _, r := range g.rows {
			if r.key == "" {
				continue
			}
			budget, ok := budgets[r.key]
			delete(budgets, r.key)
			switch {
			case !ok:
				over = append(over, fmt.Sprintf("%s is %v and has no budget", r.key, r.ours))
			case !(r.ours <= budget):
				over = append(over, fmt.Sprintf("%s is %v, the budget is %v", r.key, r.ours, budget))
			}
		}
	}
	for k := range budgets {
		over = append(over, k+" has a budget and was not measured")
	}
	if len(over) == 0 {
		return nil
	}
	slices.Sort(over)
	return fmt.Errorf("over budget; make it smaller, or raise the figure in %s and say why:\n  %s", file, strings.Join(over, "\n  "))
}

// percentile is the value that a share p of all does not exceed; NaN of none.
func percentile(all []float64, p float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(all))
	i := int(math.Ceil(p*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)]
}

func median(all []float64) float64 { return percentile(all, 0.5) }

// turns runs both sides in turns and gathers what each has measured.
func turns(n int, ours, ref func() ([]float64, error)) (a, b []float64, err error) {
	for range n {
		x, err := ours()
		if err != nil {
			return nil, nil, err
		}
		y, err := ref()
		if err != nil {
			return nil, nil, err
		}
		a, b = append(a, x...), append(b, y...)
	}
	return a, b, nil
}

// scaled divides every number.
func scaled(all []float64, by float64) []float64 {
	out := make([]float64, len(all))
	for i, f := range all {
		out[i] = f / by
	}
	return out
}

var missing = math.NaN()
