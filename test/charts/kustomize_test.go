package charts

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/google/go-cmp/cmp"
)

// overlay is what kubectl kustomize makes of the example.
func overlay(t *testing.T) rendering {
	t.Helper()
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), root+"/examples/kustomize/overlay")
	if err != nil {
		t.Fatal(err)
	}
	text, err := m.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range objects {
		if o.GetLabels()["podnotify.io/inject"] == "" { // see TestKustomize
			objects = append(objects[:i:i], objects[i+1:]...)
			break
		}
	}
	return rendering{name: "kustomize-overlay", version: kubernetes, text: string(text), objects: objects}
}

func TestKustomize(t *testing.T) {
	r := overlay(t)
	golden(t, "testdata/golden/kustomize-overlay.yaml", r.text)
	after := into[appsv1.Deployment](t, r.objects[0].Object).Spec.Template.Spec.Containers[0]
	var before appsv1.Deployment
	all, err := parse(r.text)
	if err != nil {
		t.Fatal(err)
	}
	base := readAll(t, root+"/examples/kustomize/overlay/redis.yaml")
	before = *into[appsv1.Deployment](t, base[0].Object)
	was := before.Spec.Template.Spec.Containers[0]
	if after.Env[0] != was.Env[0] || !cmp.Equal(after.VolumeMounts[0], was.VolumeMounts[0]) || after.Name != was.Name {
		t.Errorf("what was there is gone:\n%s", cmp.Diff(was, after))
	}
	// Whether there is a token is for the daemon to say.
	component := readAll(t, root+"/examples/kustomize/component/pod.yaml")
	if is := into[appsv1.Deployment](t, component[0].Object).Spec.Template.Spec.AutomountServiceAccountToken; is != nil {
		t.Errorf("automountServiceAccountToken becomes %v", *is)
	}
	if d := cmp.Diff(base[1].Object, all[1].Object); d != "" {
		t.Errorf("the one that is not labelled:\n%s", d)
	}
}
