package hyperv

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	wmi "github.com/microsoft/wmi/pkg/wmiinstance"

	"duet/vmmanager"
)

const (
	namespace  = `root\virtualization\v2`
	answerTime = 15 * time.Second // WMI is slow on a busy host, and slowest right after boot
	started    = 4096             // RequestStateChange has started a job
)

// ask runs f with a connection of its own on a thread of its own. WMI calls cannot
// be cancelled: when ctx ends first, ask returns and f goes on alone. Its answer is dropped then, and what it has
// requested may still happen. Waiting for one of the slots counts in answerTime. The errors are ctx's own,
// ErrUnavailable, or those of f.
func ask[T any](ctx context.Context, h *Hypervisor, f func(*wmi.WmiSession) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	limited, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
	case <-limited.Done():
		return none, unanswered(ctx)
	}
	done := make(chan answer, 1)
	go func() {
		defer func() { <-h.slots }()
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, whatever COM left on it
		value, err := connected(limited, f)
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-limited.Done():
		return none, unanswered(ctx)
	}
}

func unanswered(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: WMI did not answer within %s", vmmanager.ErrUnavailable, answerTime)
}

// connected calls f with a connection, and turns panics of the library into errors. f is not called once ctx has
// ended. A panic of f itself becomes an error too.
func connected[T any](ctx context.Context, f func(*wmi.WmiSession) (T, error)) (value T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: WMI: %v", vmmanager.ErrUnavailable, p)
		}
	}()
	manager := wmi.NewWmiSessionManager()
	defer manager.Close()
	session, err := manager.GetLocalSession(namespace)
	if err != nil {
		return value, fmt.Errorf("%w: open WMI session: %w", vmmanager.ErrUnavailable, err)
	}
	defer session.Close()
	if ok, err := session.Connect(); err != nil || !ok {
		return value, fmt.Errorf("%w: Hyper-V is not installed or not running (%v)", vmmanager.ErrUnavailable, err)
	}
	if ctx.Err() != nil {
		return value, ctx.Err()
	}
	return f(session)
}

// system is one VM as WMI sees it. It is good as long as the session that found it: its owner closes it in the same
// call.
type system struct {
	*wmi.WmiInstance
	id    string // GUID
	name  string
	state enabledState
}

// systems returns all VMs. The caller closes them.
func systems(session *wmi.WmiSession) ([]system, error) {
	instances, err := session.QueryInstances("SELECT * FROM Msvm_ComputerSystem")
	if err != nil {
		return nil, fmt.Errorf("%w: list VMs: %w", vmmanager.ErrUnavailable, err)
	}
	// The host itself is always in the list: the library returns an empty one when
	// reading it failed, and no VM must be taken for absent because of that.
	if len(instances) == 0 {
		return nil, fmt.Errorf("%w: list VMs: the list ended early", vmmanager.ErrUnavailable)
	}
	var found []system
	for _, instance := range instances {
		s, err := readSystem(instance)
		if err != nil {
			wmi.CloseAllInstances(instances)
			return nil, err
		}
		if !isVM(s.id) {
			_ = instance.Close()
			continue
		}
		found = append(found, s)
	}
	return found, nil
}

// readSystem reads what is wanted of an instance, which stays its caller's. A property of another type than on the
// releases known so far is an error, not a guess.
func readSystem(instance *wmi.WmiInstance) (system, error) {
	id, err1 := instance.GetProperty("Name")
	name, err2 := instance.GetProperty("ElementName")
	state, err3 := instance.GetProperty("EnabledState")
	if err := errors.Join(err1, err2, err3); err != nil {
		return system{}, fmt.Errorf("%w: read VM: %w", vmmanager.ErrUnavailable, err)
	}
	s := system{WmiInstance: instance}
	var ok1, ok2, ok3 bool
	var number int32
	s.id, ok1 = id.(string)
	s.name, ok2 = name.(string)
	number, ok3 = state.(int32)
	if !ok1 || !ok2 || !ok3 {
		return system{}, fmt.Errorf("%w: read VM: properties of unknown types %T, %T, %T", vmmanager.ErrUnavailable, id, name,
			state)
	}
	s.state = enabledState(number)
	return s, nil
}

// find returns one VM. ErrUnsupported if several have the name, which Hyper-V allows. The caller closes it.
func find(session *wmi.WmiSession, name string) (system, error) {
	all, err := systems(session)
	if err != nil {
		return system{}, err
	}
	var found []system
	for _, s := range all {
		if s.name == name {
			found = append(found, s)
		} else {
			_ = s.Close()
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	for _, s := range found {
		_ = s.Close()
	}
	if len(found) > 1 {
		return system{}, fmt.Errorf("%w: %d VMs have this name: rename all but one", vmmanager.ErrUnsupported, len(found))
	}
	return system{}, vmmanager.ErrNotFound
}

// request asks for a state; it does not wait until the VM is there. The return value 0 means done, 4096 that a job
// was started; the job's own result is not looked at.
func (s system) request(to enabledState) error {
	result, err := s.InvokeMethodWithReturn("RequestStateChange", int32(to))
	if err != nil {
		return fmt.Errorf("request state %d: %w", to, err)
	}
	if result != 0 && result != started {
		return fmt.Errorf("request state %d in state %d: Hyper-V returned %d", to, s.state, result)
	}
	return nil
}
