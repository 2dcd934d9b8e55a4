package sim

// broken is a way in which the simulated cluster does not keep a contract, to prove that the checks notice. Each
// has to be noticed by a schedule that is sound without it (TestBroken); one that nobody notices means a check
// that proves nothing.
type broken uint8

const (
	nothing         broken = iota
	lyingSecondary         // acknowledges writes without applying them
	lazySecondary          // says that it flushed and did not
	generousWitness        // says yes to everybody
	forgetfulStore         // power loss takes back what was saved last
	forgetfulDisk          // power loss takes flushed data with it
	cleanLog               // the dirty log forgets what it was told to remember
	deafFence              // the fence agent confirms and does nothing
	lonelyPrimary          // acknowledges without the peer it needs
	stubbornGuest          // is not ended when the hypervisor says so
	sleepyDisk             // of either node: now and then an operation takes 1.5 s, with nothing wrong
	brokenKinds
)

var brokenNames = [...]string{"nothing", "lying secondary", "lazy secondary", "generous witness", "forgetful store",
	"forgetful disk", "clean log", "deaf fence", "lonely primary", "stubborn guest", "sleepy disk"}

func (b broken) String() string { return brokenNames[b] }
