package proc

import "testing"

func TestHidepid(t *testing.T) {
	const plain = "22 28 0:21 / /proc rw,nosuid - proc proc rw\n"
	for _, tt := range []struct {
		name, mountinfo, want string
	}{
		{"plain", plain, ""},
		{"off", "22 28 0:21 / /proc rw shared:5 - proc proc rw,hidepid=off\n", ""},
		{"invisible", "22 28 0:21 / /proc rw shared:5 master:2 - proc proc rw,hidepid=invisible\n", "hidepid=invisible"},
		{"before 5.8", "22 28 0:21 / /proc rw - proc proc rw,gid=7,hidepid=2\n", "hidepid=2"},
		{"our group", "22 28 0:21 / /proc rw - proc proc rw,gid=5,hidepid=2\n", ""},
		{"no group helps", "22 28 0:21 / /proc rw - proc proc rw,gid=5,hidepid=ptraceable\n", "hidepid=ptraceable"},
		{"another place", plain + "23 28 0:22 / /mnt/proc rw - proc proc rw,hidepid=2\n", ""},
		{"mounted over", plain + "23 28 0:22 / /proc rw - proc proc rw,hidepid=noaccess\n", "hidepid=noaccess"},
		{"mounted over it", "23 28 0:22 / /proc rw - proc proc rw,hidepid=noaccess\n" + plain, ""},
		{"another file system", "23 28 0:22 / /proc rw - tmpfs none rw,hidepid=2\n", ""},
		{"nonsense", "\n - \n1 2 3 4 /proc - proc\n", ""},
	} {
		if got := hidepid(tt.mountinfo, "/proc", func(gid int) bool { return gid == 5 }); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
