// Package control is the unix socket on which a podnotify of the same user acts
// on one that runs: it serves the probes' pages and, by POST /control/VERB, what
// may change something. Only processes of the same uid are answered; it is never
// reachable over the network.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podnotify/podnotify/probes"
)

// Verb does one thing to the running podnotify. The request's form is its
// arguments; its error is shown to who asked. ctx ends when they hang up.
type Verb func(ctx context.Context, args url.Values) error

// Note is what there is to say of a verb that did what it could. It is returned as an
// error, and is none to who asked.
type Note string

func (n Note) Error() string { return string(n) }

// Verbs are the verbs there are, by the word in POST /control/WORD.
type Verbs map[string]Verb

const prefix = "/control/"

// done is the answer of a verb of which there is nothing to say.
const done = "ok"

// maxForm bounds the arguments of a verb, in bytes.
const maxForm = 64 << 10

// maxConnections bounds the connections; one more closes the oldest.
const maxConnections = 64

// requestWithin is how long a request may take to arrive.
const requestWithin = 5 * time.Second

// Handler serves the verbs, and everything else by read.
func Handler(read http.Handler, verbs Verbs) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		word, ok := strings.CutPrefix(r.URL.Path, prefix)
		if !ok {
			read.ServeHTTP(w, r)
			return
		}
		verb := verbs[word]
		switch {
		case verb == nil:
			refuse(w, http.StatusNotFound, fmt.Sprintf("no verb %q; there are %s", word, strings.Join(verbs.words(), ", ")))
			return
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			refuse(w, http.StatusMethodNotAllowed, "only POST acts")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		// The arguments have to come at once; what follows may take as long as a stop.
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Now().Add(requestWithin))
		if err := r.ParseForm(); err != nil {
			refuse(w, http.StatusBadRequest, "cannot read the arguments: "+err.Error())
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		answer := done
		if err := verb(r.Context(), r.Form); err != nil {
			note, ok := errors.AsType[Note](err)
			if !ok {
				refuse(w, http.StatusInternalServerError, err.Error())
				return
			}
			answer = probes.Escape(note.Error())
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(answer))
	})
}

func (v Verbs) words() []string {
	var out []string
	for w := range v {
		out = append(out, w)
	}
	slices.Sort(out)
	return out
}

func refuse(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, probes.Escape(line), code)
}

// peerKey is the context key of a connection's peer.
type peerKey struct{}

// peer is who connected, as the kernel noted it at connect(2).
type peer struct {
	uid uint32
	err error
}

// Serve answers on l until ctx ends, and returns nil then. Verbs that still run
// get a moment to finish.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: sameUID(h),
		// A verb may take as long as a stop does; only its request has to come at once.
		ReadHeaderTimeout: requestWithin,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerOf(c))
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(probes.Limit(l, maxConnections, nil))
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot serve the control socket: %w", err)
}

func peerOf(c net.Conn) peer {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = w.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return peer{err: errors.New("not a unix socket")}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return peer{err: e}
	}
	if err != nil {
		return peer{err: err}
	}
	return peer{uid: cred.Uid}
}

// sameUID answers 403 to everyone else. The socket's mode keeps most of them
// out before; root passes any mode.
func sameUID(h http.Handler) http.Handler {
	ours := uint32(os.Geteuid())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		switch {
		case !ok:
			refuse(w, http.StatusForbidden, "cannot tell who asks")
		case p.err != nil:
			refuse(w, http.StatusForbidden, "cannot tell who asks: "+p.err.Error())
		case p.uid != ours:
			refuse(w, http.StatusForbidden, fmt.Sprintf("uid %d may not control this podnotify, which runs as uid %d; run the command as uid %d", p.uid, ours, ours))
		default:
			h.ServeHTTP(w, r)
		}
	})
}
