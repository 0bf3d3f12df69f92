package initfile

import "strings"

// reasons tells of the keys of a unit without a counterpart who does that work
// where containers run. A last * stands for any end.
var reasons = []struct{ reason, section, keys string }{
	{"For people.", "Unit", "Description Documentation SourcePath"},
	{"Order and dependencies are the platform's: initContainers, depends_on, or a daemon that tries again.", "Unit",
		`After Before Wants Requires Requisite BindsTo PartOf Upholds Conflicts DefaultDependencies RequiresOverridable RequisiteOverridable
		RequiresMountsFor WantsMountsFor JoinsNamespaceOf PropagatesReloadTo PropagateReloadTo ReloadPropagatedFrom PropagateReloadFrom PropagatesStopTo
		StopPropagatedFrom OnFailure OnSuccess OnFailureJobMode OnSuccessJobMode OnFailureIsolate IgnoreOnIsolate IgnoreOnSnapshot StopWhenUnneeded
		RefuseManualStart RefuseManualStop AllowIsolate CollectMode SurviveFinalKillSignal BindTo`},
	{"Where a container may run is the platform's: nodeSelector, affinity, or an init container that looks.", "Unit", "Condition* Assert*"},
	{"What follows a failure is the platform's.", "Unit",
		"FailureAction SuccessAction FailureActionExitStatus SuccessActionExitStatus JobTimeoutSec JobRunningTimeoutSec JobTimeoutAction JobTimeoutRebootArgument StartLimitAction RebootArgument"},
	{"What follows a failure is the platform's.", "Service", "FailureAction SuccessAction StartLimitAction RebootArgument"},
	{"What is deployed is enabled.", "Install", "Alias Also WantedBy RequiredBy UpheldBy DefaultInstance"},

	{"The environment is the container's: env and envFrom. The command above has what Environment= sets.", "Service", "Environment"},
	{"The environment is the container's: env and envFrom.", "Service", "EnvironmentFile PassEnvironment UnsetEnvironment"},
	{"The user is the container's: securityContext.runAsUser, runAsGroup, supplementalGroups.", "Service",
		"User Group SupplementaryGroups DynamicUser PermissionsStartOnly SetLoginEnvironment PAMName"},
	{"The working directory is the container's: workingDir.", "Service", "WorkingDirectory"},
	{"The root file system is the image.", "Service",
		"RootDirectory RootDirectoryStartOnly RootImage* RootHash* RootVerity RootEphemeral Extension* MountImage* MountAPIVFS ExecSearchPath"},
	{"What comes before the daemon is an init container, or the image's own start script.", "Service", "ExecStartPre ExecCondition"},
	{"What comes after the start is the container's lifecycle.postStart; podnotify does not wait for it.", "Service", "ExecStartPost"},
	{"podnotify ends the daemon by signals.kill; a command for it is the container's lifecycle.preStop.", "Service", "ExecStop"},
	{"Nothing runs in a container after its daemon; a volume that goes away needs no cleaning.", "Service", "ExecStopPost"},
	{"Directories are volumes of the container, or part of the image.", "Service",
		"RuntimeDirectory* StateDirectory* CacheDirectory* LogsDirectory* ConfigurationDirectory* TimeoutCleanSec"},
	{"The sandbox is the container's: securityContext, seccompProfile, readOnlyRootFilesystem, volumes.", "Service",
		`Protect* Private* Restrict* ReadWritePaths ReadOnlyPaths InaccessiblePaths ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories
		ExecPaths NoExecPaths BindPaths BindReadOnlyPaths BindLogSockets TemporaryFileSystem MountFlags SystemCall* CapabilityBoundingSet Capabilities
		AmbientCapabilities SecureBits NoNewPrivileges LockPersonality MemoryDenyWriteExecute KeyringMode ProcSubset RemoveIPC NetworkNamespacePath
		IPCNamespacePath UserNamespacePath AppArmorProfile SELinuxContext SmackProcessLabel Personality LandlockConfig BPF* DelegateNamespaces MemoryKSM`},
	{"Limits are the container's: resources, or ulimits of the runtime.", "Service",
		`Limit* Memory* CPUAccounting CPUWeight CPUShares CPUQuota* Startup* AllowedCPUs AllowedMemoryNodes Tasks* IOAccounting IOWeight IODevice* IORead* IOWrite*
		BlockIO* Device* IPAccounting IPAddress* IPIngress* IPEgress* SocketBind* BPFProgram NFTSet Slice Delegate DelegateSubgroup DisableControllers
		ManagedOOM* OOMPolicy DefaultMemory* CoredumpReceive Coredump*`},
	{"Scheduling is the node's and the container's.", "Service",
		"Nice OOMScoreAdjust IOScheduling* CPUScheduling* CPUAffinity NUMA* TimerSlackNSec UMask IgnoreSIGPIPE"},
	{"Input, output and the log are the platform's: it keeps what the container writes.", "Service",
		"StandardInput* StandardOutput StandardError Syslog* Log* TTY* Utmp*"},
	{"Secrets are volumes of the container.", "Service", "LoadCredential* SetCredential* ImportCredential"},
	{"podnotify does no socket activation: the platform owns the ports, and the daemon opens them.", "Service", "Sockets NonBlocking OpenFile USBFunction*"},
	{"podnotify signals the main process, KILL after timeouts.stop (0: never); run then ends what is left in the same way.", "Service",
		"KillMode SendSIGKILL SendSIGHUP FinalKillSignal RestartKillSignal TimeoutAbortSec TimeoutStopFailureMode"},
	{"A start that takes too long fails the startup and ready checks; policy.start-timeout: not-live makes it restart.", "Service", "TimeoutStartFailureMode"},
	{"podnotify has no limit for how long a daemon runs.", "Service", "RuntimeMaxSec RuntimeRandomizedExtraSec"},
	{"A container lives as long as its daemon.", "Service", "RemainAfterExit ExitType RestartMode GuessMainPID"},
	{"podnotify keeps descriptors for as long as it runs.", "Service", "FileDescriptorStorePreserve"},
	{"podnotify does not look at the bus.", "Service", "BusName BusPolicy"},
	{"It means nothing to systemd any more.", "Service", "FsckPassNo SysVStartPriority LegacyOptions"},
	{"It belongs to a reload of systemd.", "Service", "RefreshOnReload"},
}

// reasonFor returns why an assignment has no counterpart.
func reasonFor(e *entry) (reason string, known bool) {
	switch {
	case strings.HasPrefix(e.section, "X-"), strings.HasPrefix(e.key, "X-"):
		return "For other programs: systemd ignores it, too.", true
	case e.section != "Unit" && e.section != "Service" && e.section != "Install":
		return "A unit of a service has no section [" + printable(e.section) + "], so systemd ignores it, too.", true
	}
	for _, r := range reasons {
		if r.section != e.section {
			continue
		}
		for k := range strings.FieldsSeq(r.keys) {
			family, any := strings.CutSuffix(k, "*")
			if any && strings.HasPrefix(e.key, family) || e.key == k {
				return r.reason, true
			}
		}
	}
	return "", false
}
