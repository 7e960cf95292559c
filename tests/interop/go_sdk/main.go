// The Firecracker Go SDK, unmodified, drives whatever is called "firecracker" and "jailer" on PATH, and says in TAP
// what worked. Guests are the freestanding ones of tests/guest.
//
// Usage: interop <folder of guests> <scratch folder>
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	firecracker "github.com/firecracker-microvm/firecracker-go-sdk"
	models "github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	operations "github.com/firecracker-microvm/firecracker-go-sdk/client/operations"
	"github.com/sirupsen/logrus"
)

// How long a condition may take; only a failing test waits that long.
const patience = 30 * time.Second

var guests, scratch string

// The serial port's output.
type console struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (c *console) Write(data []byte) (int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.text.Write(data)
}

func (c *console) String() string {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.text.String()
}

func waitFor(what string, condition func() bool) error {
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}

// One microVM and what a test needs to talk to it.
type vm struct {
	*firecracker.Machine
	ctx    context.Context
	serial console
	keys   *os.File // the other end of stdin
	stdin  *os.File
	folder string
	cancel context.CancelFunc
}

func (v *vm) path(name string) string {
	return filepath.Join(v.folder, name)
}

func (v *vm) expect(text string) error {
	err := waitFor(fmt.Sprintf("%q on the serial port", text), func() bool {
		return strings.Contains(v.serial.String(), text)
	})
	if err != nil {
		return fmt.Errorf("%w; it has %q", err, v.serial.String())
	}
	return nil
}

func (v *vm) say(keys string) error {
	_, err := v.keys.Write([]byte(keys))
	return err
}

// The guest has reset: the process ends with code 0.
func (v *vm) expectEnd() error {
	ctx, cancel := context.WithTimeout(v.ctx, patience)
	defer cancel()
	return v.Wait(ctx)
}

// A file of the test's own, of `size` bytes that all are `letter`.
func (v *vm) file(name string, letter byte, size int) (string, error) {
	file := v.path(name)
	return file, os.WriteFile(file, bytes.Repeat([]byte{letter}, size), 0600)
}

func (v *vm) config(guest string) firecracker.Config {
	return firecracker.Config{
		SocketPath:      v.path("api.sock"),
		KernelImagePath: filepath.Join(guests, guest+".elf"),
		KernelArgs:      "console=ttyS0",
		MachineCfg: models.MachineConfiguration{
			VcpuCount:  firecracker.Int64(1),
			MemSizeMib: firecracker.Int64(128),
			Smt:        firecracker.Bool(false),
		},
		Seccomp:        firecracker.SeccompConfig{Enabled: true},
		ForwardSignals: []os.Signal{},
	}
}

func (v *vm) create(config firecracker.Config) error {
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	options := []firecracker.Opt{firecracker.WithLogger(logrus.NewEntry(quiet))}
	// A pipe of the kernel's: the SDK sees the end of the process only when nothing is copied any more.
	keys, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	v.keys, v.stdin = writer, keys
	if config.JailerCfg == nil {
		command := firecracker.VMCommandBuilder{}.WithBin("firecracker").WithSocketPath(config.SocketPath).
			AddArgs("--id", "interop").WithStdin(keys).WithStdout(&v.serial).WithStderr(&v.serial).Build(v.ctx)
		options = append(options, firecracker.WithProcessRunner(command))
	}
	machine, err := firecracker.NewMachine(v.ctx, config, options...)
	v.Machine = machine
	return err
}

func (v *vm) start(config firecracker.Config) error {
	if err := v.create(config); err != nil {
		return err
	}
	return v.Start(v.ctx)
}

// Whatever the test left behind.
func (v *vm) end() {
	if v.Machine != nil {
		if pid, err := v.PID(); err == nil {
			if process, err := os.FindProcess(pid); err == nil {
				process.Kill()
			}
			v.expectEnd()
		}
	}
	if v.keys != nil {
		v.keys.Close()
		v.stdin.Close()
	}
	v.cancel()
	os.RemoveAll(v.folder)
}

// What a refusal says, whichever request it was.
func faultOf(err error) *models.Error {
	switch refusal := err.(type) {
	case *operations.PutGuestDriveByIDBadRequest:
		return refusal.Payload
	case *operations.PutGuestVsockBadRequest:
		return refusal.Payload
	case *operations.PutMmdsConfigBadRequest:
		return refusal.Payload
	case *operations.PutBalloonBadRequest:
		return refusal.Payload
	case *operations.CreateSyncActionBadRequest:
		return refusal.Payload
	case *operations.PatchVMBadRequest:
		return refusal.Payload
	}
	return nil
}

type skip string

func (s skip) Error() string { return string(s) }

func run(number int, name string, test func(v *vm) error) bool {
	folder, err := os.MkdirTemp(scratch, "vm")
	if err != nil {
		fmt.Printf("  %v\nnot ok %d - %s\n", err, number, name)
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	v := &vm{ctx: ctx, cancel: cancel, folder: folder}
	err = test(v)
	serial := v.serial.String()
	v.end()
	var reason skip
	if payload := faultOf(err); payload != nil && strings.HasSuffix(payload.FaultMessage, ": no such path") {
		err = skip("it has not " + strings.TrimSuffix(strings.Fields(payload.FaultMessage)[1], ":"))
	}
	switch {
	case errors.As(err, &reason):
		fmt.Printf("ok %d - %s # SKIP %s\n", number, name, string(reason))
	case err != nil:
		fmt.Printf("  %v\n  the serial port and stderr: %q\nnot ok %d - %s\n", err, serial, number, name)
		return false
	default:
		fmt.Printf("ok %d - %s\n", number, name)
	}
	return true
}

func main() {
	guests, scratch = os.Args[1], os.Args[2]
	logrus.SetOutput(io.Discard)
	filter := os.Getenv("MAYFLY_TEST_FILTER")
	if filter == "" {
		filter = "*"
	}
	passed := true
	number := 0
	for _, test := range tests {
		if chosen, _ := path.Match(filter, test.name); chosen {
			number++
			passed = run(number, test.name, test.run) && passed
		}
	}
	fmt.Printf("1..%d\n", number)
	if !passed {
		os.Exit(1)
	}
}

func command(words ...string) error {
	output, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, output)
	}
	return nil
}
