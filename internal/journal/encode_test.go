package journal

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podnotify/podnotify/sidecar/lifecycle"
)

// TestEncode: what is written is what json.Marshal makes of it, whatever is in a record,
// and also of what a later version adds to it.
func TestEncode(t *testing.T) {
	check := func(t rapid.TB, r *Record) {
		t.Helper()
		want, wrong := json.Marshal(r)
		got, err := r.encode(nil)
		if (err != nil) != (wrong != nil) {
			t.Fatalf("error %v, json has %v", err, wrong)
		}
		if err == nil && string(got) != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
	check(t, &Record{})
	check(t, ready())
	each(reflect.ValueOf(&Record{}).Elem(), func(r reflect.Value) { check(t, r.Addr().Interface().(*Record)) })
	rapid.Check(t, func(rt *rapid.T) {
		r := &Record{}
		draw(rt, reflect.ValueOf(r).Elem())
		check(rt, r)
	})
}

// each calls f with root, in which one field after the other is not zero.
func each(root reflect.Value, f func(root reflect.Value)) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		if v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[time.Time]() {
			for i := range v.NumField() {
				walk(v.Field(i))
			}
			return
		}
		set(v)
		f(root)
		v.SetZero()
	}
	walk(root)
}

func set(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Date(2026, 11, 22, 7, 8, 9, 10, time.UTC)))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.String:
		v.SetString("a<b\u2028\xff\"\\\n")
	case v.CanInt():
		v.SetInt(3)
	case v.CanUint():
		v.SetUint(3)
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			if e := v.Index(i); e.Kind() == reflect.Struct {
				set(e.Field(0))
			} else {
				set(e)
			}
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	}
}

// draw fills v with anything.
func draw(t *rapid.T, v reflect.Value) {
	if rapid.Bool().Draw(t, "zero") {
		return
	}
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(rapid.Int64Range(-1<<36, 1<<38).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns"))))
	case v.Type() == reflect.TypeFor[lifecycle.Phase]():
		v.SetUint(uint64(rapid.IntRange(0, int(lifecycle.Gone)).Draw(t, "phase")))
	case v.Type() == reflect.TypeFor[lifecycle.Expect]():
		v.SetUint(uint64(rapid.IntRange(0, int(lifecycle.ExpectAuto)).Draw(t, "expect")))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.String:
		v.SetString(string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")))
	case v.CanInt():
		v.SetInt(rapid.Int64().Draw(t, "number"))
	case v.CanUint():
		v.SetUint(rapid.Uint64().Draw(t, "number"))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			draw(t, v.Field(i))
		}
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			draw(t, v.Index(i))
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		draw(t, v.Elem())
	}
}
