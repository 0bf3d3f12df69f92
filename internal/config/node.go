package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// NodeConfig is the configuration of podnotify-node itself; see [Container] for that
// of the services.
type NodeConfig struct {
	Config
	Containerd string   // path of containerd's socket
	Namespaces []string // of containerd that are served; empty: all
}

// DefaultContainerd is where containerd listens nearly everywhere.
const DefaultContainerd = "/run/containerd/containerd.sock"

// nodeKeys are the keys of podnotify that a node agent has, too, and its own.
var nodeKeys = func() (keys []key[NodeConfig]) {
	for i := range processKeys {
		k := processKeys[i]
		if k.name == fileKey {
			continue
		}
		keys = append(keys, key[NodeConfig]{k.name, k.def, k.word, k.help, func(c *NodeConfig, v string) *fault { return k.parse(&c.Config, v) }})
	}
	return append(keys,
		key[NodeConfig]{"containerd", DefaultContainerd, "PATH", "containerd's socket",
			func(c *NodeConfig, v string) (f *fault) {
				if v == "" {
					return &fault{"there is nothing without containerd", "name its socket, by default " + DefaultContainerd}
				}
				c.Containerd, f = readPath(v)
				return f
			}},
		key[NodeConfig]{"namespaces", "", "LIST", "namespaces of containerd to serve, with commas between them; by default all",
			func(c *NodeConfig, v string) *fault {
				for name := range strings.SplitSeq(v, ",") {
					if name = strings.TrimSpace(name); name != "" {
						c.Namespaces = append(c.Namespaces, name)
					}
				}
				if v != "" && c.Namespaces == nil {
					return &fault{"names no namespace", "name some, or leave it empty for all"}
				}
				return nil
			}})
}()

// AddNodeFlags defines the flags of podnotify-node that are named, or all of them.
func AddNodeFlags(flags *pflag.FlagSet, only ...string) {
	for _, k := range nodeKeys {
		if len(only) == 0 || slices.Contains(only, k.name) {
			addFlags(flags, []key[NodeConfig]{k})
		}
	}
}

// LoadNode reads the configuration of podnotify-node from flags and environment, see
// [Load]. There is no file: what is to be served says so itself.
func LoadNode(flags *pflag.FlagSet, environ []string) (NodeConfig, error) {
	l := newLoader(Node, flags, environ)
	values := layer(l, nodeKeys, nil, true)
	if values.viper.GetString("run-dir") == "" {
		values.viper.Set("run-dir", defaultRunDir(os.Geteuid(), l.env["XDG_RUNTIME_DIR"]))
		delete(values.origin, "run-dir")
	}
	var c NodeConfig
	parse(l, nodeKeys, values, &c)
	if c.RunDir == "" && len(l.errs) == 0 {
		l.fail(Error{"run-dir", "", values.origin["run-dir"], "there is no directory that containers could be given", "name one"})
	}
	if len(l.errs) > 0 {
		return NodeConfig{}, l.errs
	}
	c.RunDir = filepath.Clean(c.RunDir)
	return c, nil
}
