package main

import (
	"os"
	"os/exec"
	"path/filepath"
)

func lookPath(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(found)
}

// What a jailer leaves behind: nobody but its caller knows when the cgroups are not wanted any more.
func removeCgroups(program, id string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/"} {
		found, _ := filepath.Glob(pattern + program + "/" + id)
		for _, folder := range found {
			waitFor("the cgroup's last process to be gone", func() bool {
				err := os.Remove(folder)
				return err == nil || os.IsNotExist(err)
			})
			os.Remove(filepath.Dir(folder))
		}
	}
}
