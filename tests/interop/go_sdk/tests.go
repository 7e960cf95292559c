package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	firecracker "github.com/firecracker-microvm/firecracker-go-sdk"
	models "github.com/firecracker-microvm/firecracker-go-sdk/client/models"
	"github.com/firecracker-microvm/firecracker-go-sdk/vsock"
)

var tests = []struct {
	name string
	run  func(v *vm) error
}{
	{"test_sdk_boots_a_guest_and_sees_its_end", boots},
	{"test_sdk_boots_without_seccomp", bootsWithoutSeccomp},
	{"test_sdk_reads_what_the_instance_is", reads},
	{"test_sdk_attaches_drives_with_all_their_options", attachesDrives},
	{"test_sdk_changes_a_drive_at_run_time", changesDrive},
	{"test_sdk_attaches_a_tap_and_limits_it_at_run_time", attachesTap},
	{"test_sdk_talks_to_the_guest_over_vsock", talksOverVsock},
	{"test_sdk_keeps_metadata", keepsMetadata},
	{"test_sdk_inflates_a_balloon", inflatesBalloon},
	{"test_sdk_pauses_and_resumes", pauses},
	{"test_sdk_presses_ctrl_alt_del", pressesCtrlAltDel},
	{"test_sdk_gets_log_and_metrics_through_fifos", readsFifos},
	{"test_sdk_is_told_why_it_is_refused", isRefused},
	{"test_sdk_stops_the_vmm", stopsVMM},
	{"test_sdk_jails_the_vmm", jails},
}

func first(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func boots(v *vm) error {
	config := v.config("hello")
	config.KernelArgs = "console=ttyS0 from=sdk"
	return first(
		func() error { return v.start(config) },
		func() error { return v.expect("from=sdk") },
		v.expectEnd)
}

func bootsWithoutSeccomp(v *vm) error {
	config := v.config("hello")
	config.Seccomp = firecracker.SeccompConfig{Enabled: false}
	return first(
		func() error { return v.start(config) },
		func() error { return v.expect("hello") },
		v.expectEnd)
}

func reads(v *vm) error {
	if err := v.start(v.config("spin")); err != nil {
		return err
	}
	info, err := v.DescribeInstanceInfo(v.ctx)
	if err != nil {
		return err
	}
	version, err := v.GetFirecrackerVersion(v.ctx)
	if err != nil {
		return err
	}
	if *info.State != models.InstanceInfoStateRunning || *info.ID != "interop" || *info.VmmVersion != version {
		return fmt.Errorf("state %q, id %q, version %q and %q", *info.State, *info.ID, *info.VmmVersion, version)
	}
	if !strings.HasPrefix(version, "1.") {
		return fmt.Errorf("version %q, expected 1.something", version)
	}
	client := firecracker.NewClient(v.Cfg.SocketPath, nil, false)
	whole, err := client.GetExportVMConfig()
	if err != nil {
		return err
	}
	if got := *whole.Payload.MachineConfig.MemSizeMib; got != 128 {
		return fmt.Errorf("mem_size_mib: %d, expected 128", got)
	}
	if got := *whole.Payload.BootSource.KernelImagePath; got != v.Cfg.KernelImagePath {
		return fmt.Errorf("kernel_image_path: %q, expected %q", got, v.Cfg.KernelImagePath)
	}
	return nil
}

// 10 operations and 64 KiB a tenth of a second, with a burst before.
func limiter() *models.RateLimiter {
	bandwidth := firecracker.TokenBucketBuilder{}.WithBucketSize(64 << 10).WithInitialSize(4 << 10).
		WithRefillDuration(100 * time.Millisecond).Build()
	ops := firecracker.TokenBucketBuilder{}.WithBucketSize(10).WithInitialSize(2).
		WithRefillDuration(100 * time.Millisecond).Build()
	return firecracker.NewRateLimiter(bandwidth, ops)
}

func attachesDrives(v *vm) error {
	root, err := v.file("root", 'r', 1<<20)
	if err != nil {
		return err
	}
	data, err := v.file("data", 'd', 1<<20)
	if err != nil {
		return err
	}
	config := v.config("block")
	config.KernelArgs = "console=ttyS0 ops=r0,D1,r8,w8:x,r8,f,i"
	config.Drives = firecracker.NewDrivesBuilder(root).
		WithRootDrive(root, firecracker.WithDriveID("root"), firecracker.WithReadOnly(true),
			firecracker.WithPartuuid("01234567-01")).
		AddDrive(data, false, firecracker.WithDriveID("data"), firecracker.WithRateLimiter(*limiter()),
			firecracker.WithCacheType("Writeback"), firecracker.WithIoEngine("Sync")).
		Build()
	err = first(
		func() error { return v.start(config) },
		v.expectEnd)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(data)
	if err != nil {
		return err
	}
	if content[8*512] != 'x' || content[9*512] != 'd' {
		return fmt.Errorf("the guest wrote %q, then comes %q", content[8*512], content[9*512])
	}
	return nil
}

func changesDrive(v *vm) error {
	before, err := v.file("before", 'b', 1<<20)
	if err != nil {
		return err
	}
	after, err := v.file("after", 'a', 1<<20)
	if err != nil {
		return err
	}
	config := v.config("block")
	config.KernelArgs = "console=ttyS0 ops=r0,p,r0,w0:z,f"
	config.Drives = []models.Drive{{
		DriveID:      firecracker.String("data"),
		PathOnHost:   &before,
		IsRootDevice: firecracker.Bool(false),
		IsReadOnly:   firecracker.Bool(false),
		RateLimiter:  limiter(),
	}}
	err = first(
		func() error { return v.start(config) },
		func() error { return v.UpdateGuestDrive(v.ctx, "data", after) },
		func() error { return v.say("g") },
		v.expectEnd)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(after)
	if err != nil {
		return err
	}
	if content[0] != 'z' {
		return fmt.Errorf("the new file begins with %q, expected what the guest wrote", content[0])
	}
	return nil
}

func attachesTap(v *vm) error {
	if os.Getuid() != 0 {
		return skip("making a tap needs root")
	}
	if err := command("ip", "tuntap", "add", "dev", "interop0", "mode", "tap"); err != nil {
		return err
	}
	defer command("ip", "link", "del", "interop0")
	config := v.config("net")
	config.NetworkInterfaces = firecracker.NetworkInterfaces{{
		StaticConfiguration: &firecracker.StaticNetworkConfiguration{
			MacAddress: "AA:FC:00:00:00:01", HostDevName: "interop0"},
		InRateLimiter:  limiter(),
		OutRateLimiter: limiter(),
	}}
	return first(
		func() error { return command("ip", "link", "set", "interop0", "up") },
		func() error { return v.start(config) },
		func() error { return v.expect("aafc00000001") },
		func() error {
			return v.UpdateGuestNetworkInterfaceRateLimit(v.ctx, "1",
				firecracker.RateLimiterSet{InRateLimiter: limiter(), OutRateLimiter: limiter()})
		})
}

func talksOverVsock(v *vm) error {
	config := v.config("vsock")
	config.VsockDevices = []firecracker.VsockDevice{{ID: "vsock0", Path: v.path("vsock"), CID: 42}}
	if err := first(func() error { return v.start(config) }, func() error { return v.expect("cid 2a") }); err != nil {
		return err
	}
	connection, err := vsock.DialContext(v.ctx, v.path("vsock"), 1234)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprint(connection, "hello\n"); err != nil {
		return err
	}
	connection.SetReadDeadline(time.Now().Add(patience))
	heard, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil || heard != "hello\n" {
		return fmt.Errorf("heard %q: %v", heard, err)
	}
	return nil
}

func keepsMetadata(v *vm) error {
	if os.Getuid() != 0 {
		return skip("making a tap needs root")
	}
	if err := command("ip", "tuntap", "add", "dev", "interop1", "mode", "tap"); err != nil {
		return err
	}
	defer command("ip", "link", "del", "interop1")
	config := v.config("spin")
	config.MmdsAddress = net.IPv4(169, 254, 170, 2)
	config.MmdsVersion = firecracker.MMDSv2
	config.NetworkInterfaces = firecracker.NetworkInterfaces{{
		StaticConfiguration: &firecracker.StaticNetworkConfiguration{HostDevName: "interop1"},
		AllowMMDS:           true,
	}}
	if err := v.create(config); err != nil {
		return err
	}
	type metadata map[string]interface{}
	v.Handlers.FcInit = v.Handlers.FcInit.Append(
		firecracker.NewSetMetadataHandler(metadata{"a": "1", "gone": "x", "deep": metadata{"b": "2"}}))
	var got metadata
	err := first(
		func() error { return v.Start(v.ctx) },
		func() error {
			return v.UpdateMetadata(v.ctx, metadata{"gone": nil, "deep": metadata{"c": "3"}})
		},
		func() error { return v.GetMetadata(v.ctx, &got) })
	if err != nil {
		return err
	}
	wanted := metadata{"a": "1", "deep": map[string]interface{}{"b": "2", "c": "3"}}
	if !reflect.DeepEqual(got, wanted) {
		return fmt.Errorf("got %v, expected %v", got, wanted)
	}
	return nil
}

func inflatesBalloon(v *vm) error {
	if err := v.create(v.config("spin")); err != nil {
		return err
	}
	v.Handlers.FcInit = v.Handlers.FcInit.AppendAfter(firecracker.CreateMachineHandlerName,
		firecracker.NewCreateBalloonHandler(10, true, 1))
	err := first(
		func() error { return v.Start(v.ctx) },
		func() error { return v.UpdateBalloon(v.ctx, 20) },
		func() error { return v.UpdateBalloonStats(v.ctx, 2) })
	if err != nil {
		return err
	}
	balloon, err := v.GetBalloonConfig(v.ctx)
	if err != nil {
		return err
	}
	if *balloon.AmountMib != 20 || !*balloon.DeflateOnOom || balloon.StatsPollingIntervals != 2 {
		return fmt.Errorf("amount_mib %d, deflate_on_oom %v, stats_polling_interval_s %d", *balloon.AmountMib,
			*balloon.DeflateOnOom, balloon.StatsPollingIntervals)
	}
	stats, err := v.GetBalloonStats(v.ctx)
	if err != nil {
		return err
	}
	if *stats.TargetMib != 20 || *stats.TargetPages != 20*256 {
		return fmt.Errorf("target_mib %d, target_pages %d", *stats.TargetMib, *stats.TargetPages)
	}
	return nil
}

func pauses(v *vm) error {
	state := func(wanted string) func() error {
		return func() error {
			info, err := v.DescribeInstanceInfo(v.ctx)
			if err == nil && *info.State != wanted {
				return fmt.Errorf("state %q, expected %q", *info.State, wanted)
			}
			return err
		}
	}
	return first(
		func() error { return v.start(v.config("spin")) },
		func() error { return v.expect("spinning") },
		func() error { return v.PauseVM(v.ctx) },
		state(models.InstanceInfoStatePaused),
		func() error { return v.ResumeVM(v.ctx) },
		state(models.InstanceInfoStateRunning),
		func() error { return v.say("p") },
		func() error { return v.expect("count") },
		func() error { return v.say("q") },
		v.expectEnd)
}

func pressesCtrlAltDel(v *vm) error {
	return first(
		func() error { return v.start(v.config("ctrl_alt_del")) },
		func() error { return v.expect("waiting") },
		func() error { return v.Shutdown(v.ctx) },
		v.expectEnd)
}

func readsFifos(v *vm) error {
	var log console
	config := v.config("spin")
	config.LogFifo = v.path("log")
	config.LogLevel = "Debug"
	config.MetricsFifo = v.path("metrics")
	config.FifoLogWriter = &log
	return first(
		func() error { return v.start(config) },
		func() error { return v.expect("spinning") },
		func() error {
			return waitFor("the log", func() bool { return strings.Contains(log.String(), "[interop:") })
		})
}

func isRefused(v *vm) error {
	config := v.config("hello")
	missing := v.path("missing")
	config.Drives = []models.Drive{{
		DriveID:      firecracker.String("data"),
		PathOnHost:   &missing,
		IsRootDevice: firecracker.Bool(false),
		IsReadOnly:   firecracker.Bool(false),
	}}
	err := v.start(config)
	if err == nil {
		return fmt.Errorf("a drive without a file was taken")
	}
	payload := faultOf(err)
	if payload == nil || payload.FaultMessage == "" {
		return fmt.Errorf("%T, expected a refusal with a fault_message: %w", err, err)
	}
	return nil
}

func stopsVMM(v *vm) error {
	err := first(
		func() error { return v.start(v.config("spin")) },
		func() error { return v.expect("spinning") },
		func() error { return v.StopVMM() })
	if err != nil {
		return err
	}
	if err := v.expectEnd(); err == nil || !strings.Contains(err.Error(), "signal: terminated") {
		return fmt.Errorf("ended with %v, expected the signal's name", err)
	}
	if _, err := os.Stat(v.Cfg.SocketPath); !os.IsNotExist(err) {
		return fmt.Errorf("the socket is still there: %v", err)
	}
	return nil
}

func jails(v *vm) error {
	if os.Getuid() != 0 {
		return skip("the jailer needs root")
	}
	root, err := v.file("root.img", 'r', 1<<20)
	if err != nil {
		return err
	}
	// The SDK makes hard links into the jail: the kernel must be on the same file system.
	content, err := os.ReadFile(filepath.Join(guests, "hello.elf"))
	if err != nil {
		return err
	}
	kernel := v.path("kernel")
	if err := os.WriteFile(kernel, content, 0644); err != nil {
		return err
	}
	if err := os.Chown(root, 1234, 1234); err != nil {
		return err
	}
	version := "2"
	if _, err := os.Stat("/sys/fs/cgroup/cpuset/cgroup.procs"); err == nil {
		version = "1"
	}
	binary, err := lookPath("firecracker")
	if err != nil {
		return err
	}
	config := v.config("")
	config.SocketPath = ""
	config.KernelImagePath = kernel
	config.Drives = firecracker.NewDrivesBuilder(root).Build()
	id := fmt.Sprintf("interop-%d", os.Getpid())
	config.JailerCfg = &firecracker.JailerConfig{
		UID: firecracker.Int(1234), GID: firecracker.Int(1234), ID: id, NumaNode: firecracker.Int(0),
		ExecFile: binary, ChrootBaseDir: v.path("jails"), CgroupVersion: version,
		ChrootStrategy: firecracker.NewNaiveChrootStrategy(kernel),
		Stdin:          strings.NewReader(""), Stdout: &v.serial, Stderr: &v.serial,
	}
	if err := os.Mkdir(v.path("jails"), 0755); err != nil {
		return err
	}
	defer removeCgroups(filepath.Base(binary), id)
	return first(
		func() error { return v.start(config) },
		func() error { return v.expect("root=/dev/vda") },
		v.expectEnd)
}
