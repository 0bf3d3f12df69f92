package lifecycle

import (
	"fmt"
	"strings"
	"time"
)

// cell is what one kind of news does in one phase, and the words for it in
// docs/lifecycle.md. Every cell is written; doing nothing is written too.
type cell struct {
	do  func(*Machine, Event, time.Time)
	doc string
}

var (
	none   = cell{nop, "-"}
	ignore = cell{count, "ignored, counted"}
)

var table = [phases][kinds]cell{
	Absent: {
		Found:         {found, "-> starting; none: -> ready"},
		ReadyWord:     ignore,
		Reload:        ignore,
		StopWord:      ignore,
		MainPID:       {mainNew, "-> starting; none: -> ready"},
		Stopped:       {stopNew, "stop, auto: -> starting, continue it"},
		Continued:     none,
		Ended:         {exitTold, "record how"},
		StopAsked:     none,
		RespawnAsked:  {respawnGone, "exec: start"},
		ReloadAsked:   none,
		Forked:        none,
		PIDFileRead:   {pidFileNew, "pidfile: -> ready"},
		Timer:         {timer, "respawn due; limit forgotten"},
		Resumed:       none,
		Status:        none,
		Errno:         none,
		BusError:      none,
		VarlinkError:  none,
		Ping:          none,
		Trigger:       none,
		WatchdogEvery: none,
		Extend:        none,
		ResetRespawns: {resetRespawns, "forget respawns"},
		Opened:        none,
		Denied:        none,
		Permitted:     none,
		NotStarted:    {notStarted, "respawn again, counted"},
	},
	Starting: {
		Found:         {refound, "main process, if none yet; none: -> ready"},
		ReadyWord:     {readyStarting, "notify, auto: -> ready"},
		Reload:        {reloadStarting, "stays (haproxy)"},
		StopWord:      {stopping, "-> stopping"},
		MainPID:       {mainPID, "adopt"},
		Stopped:       {stopStarting, "stop, auto: adopt, continue it; else paused"},
		Continued:     {continued, "owed stop: -> ready; else not paused"},
		Ended:         {ended, "main process: -> gone"},
		StopAsked:     {stopAsked, "-> stopping, continue it if stopped"},
		RespawnAsked:  {respawnAsked, "-> stopping, end it"},
		ReloadAsked:   none,
		Forked:        {forked, "fork, daemon, pidfile: adopt; forks as expected: -> ready"},
		PIDFileRead:   {pidFile, "pidfile: adopt, -> ready"},
		Timer:         {timer, "start time-out passed; not-live, respawn by mode: -> stopping"},
		Resumed:       {resumeStarting, "notify, auto: unknown; policy.unknown ready: -> ready"},
		Status:        {status, "keep"},
		Errno:         {errno, "keep"},
		BusError:      {busError, "keep"},
		VarlinkError:  {varlinkError, "keep"},
		Ping:          {pingEarly, "note, arm nothing"},
		Trigger:       {trigger, "starved for good; respawn by mode: -> stopping"},
		WatchdogEvery: {watchdogEarly, "set interval"},
		Extend:        {extend, "start deadline"},
		ResetRespawns: {resetRespawns, "forget respawns"},
		Opened:        {opened, "gate open"},
		Denied:        {denied, "note"},
		Permitted:     {permitted, "note"},
		NotStarted:    none,
	},
	Ready: {
		Found:         none,
		ReadyWord:     {readyAgain, "stays, clears ERRNO"},
		Reload:        {reload, "-> reloading"},
		StopWord:      {stopping, "-> stopping"},
		MainPID:       {mainPID, "adopt, stays"},
		Stopped:       {stopRunning, "paused; auto, early: continue it"},
		Continued:     {continued, "not paused"},
		Ended:         {ended, "main process: -> gone; a child whose READY=1 was for itself: -> starting"},
		StopAsked:     {stopAsked, "-> stopping, continue it if stopped"},
		RespawnAsked:  {respawnAsked, "-> stopping, end it"},
		ReloadAsked:   {reloadAsked, "note"},
		Forked:        {forkedOn, "fork, daemon: adopt, one more than expected"},
		PIDFileRead:   none,
		Timer:         {timer, "watchdog missed; respawn by mode: -> stopping"},
		Resumed:       {resumeReady, "stays, watchdog anew"},
		Status:        {status, "keep"},
		Errno:         {errno, "keep"},
		BusError:      {busError, "keep"},
		VarlinkError:  {varlinkError, "keep"},
		Ping:          {ping, "rearm"},
		Trigger:       {trigger, "starved for good; respawn by mode: -> stopping"},
		WatchdogEvery: {watchdogEvery, "set interval, rearm"},
		Extend:        {extend, "watchdog deadline"},
		ResetRespawns: {resetRespawns, "forget respawns"},
		Opened:        {opened, "gate open"},
		Denied:        {denied, "note"},
		Permitted:     {permitted, "note"},
		NotStarted:    none,
	},
	Reloading: {
		Found:         none,
		ReadyWord:     {readyAgain, "-> ready"},
		Reload:        {reloadAgain, "stays, deadline anew"},
		StopWord:      {stopping, "-> stopping"},
		MainPID:       {mainPID, "adopt, stays"},
		Stopped:       {stopRunning, "paused; auto, early: continue it"},
		Continued:     {continued, "not paused"},
		Ended:         {ended, "main process: -> gone; a child whose READY=1 was for itself: -> starting"},
		StopAsked:     {stopAsked, "-> stopping, continue it if stopped"},
		RespawnAsked:  {respawnAsked, "-> stopping, end it"},
		ReloadAsked:   {reloadAsked, "note"},
		Forked:        {forkedOn, "fork, daemon: adopt, one more than expected"},
		PIDFileRead:   none,
		Timer:         {timer, "reload time-out passed; watchdog missed; respawn by mode: -> stopping"},
		Resumed:       {resumeReloading, "unknown; policy.unknown ready: -> ready"},
		Status:        {status, "keep"},
		Errno:         {errno, "keep"},
		BusError:      {busError, "keep"},
		VarlinkError:  {varlinkError, "keep"},
		Ping:          {ping, "rearm"},
		Trigger:       {trigger, "starved for good; respawn by mode: -> stopping"},
		WatchdogEvery: {watchdogEvery, "set interval, rearm"},
		Extend:        {extend, "reload and watchdog deadline"},
		ResetRespawns: {resetRespawns, "forget respawns"},
		Opened:        {opened, "gate open"},
		Denied:        {denied, "note"},
		Permitted:     {permitted, "note"},
		NotStarted:    none,
	},
	Stopping: {
		Found:         {foundNext, "another process: -> starting; none: -> ready"},
		ReadyWord:     {readyStopping, "ignored; after another process's STOPPING=1: main process -> ready"},
		Reload:        ignore,
		StopWord:      {stoppingAgain, "stays"},
		MainPID:       {mainPIDStopping, "adopt, stays"},
		Stopped:       {stopStopping, "paused; if we asked: continue it"},
		Continued:     {continued, "not paused"},
		Ended:         {ended, "main process: -> gone; another that said STOPPING=1: -> starting, or -> ready if the main process said so since"},
		StopAsked:     {stopAsked, "stays, continue it if stopped"},
		RespawnAsked:  {respawnAsked, "stays, end it"},
		ReloadAsked:   none,
		Forked:        none,
		PIDFileRead:   none,
		Timer:         {timer, "stop time-out passed: kill, if we asked or the mode says so"},
		Resumed:       {resumeStopping, "stays, deadline anew; if only podnotify was going down, as before: -> starting, -> ready, -> reloading"},
		Status:        {status, "keep"},
		Errno:         {errno, "keep"},
		BusError:      {busError, "keep"},
		VarlinkError:  {varlinkError, "keep"},
		Ping:          {pingEarly, "note, arm nothing"},
		Trigger:       {trigger, "starved for good; respawn by mode: -> stopping"},
		WatchdogEvery: {watchdogEarly, "set interval"},
		Extend:        {extend, "stop deadline"},
		ResetRespawns: {resetRespawns, "forget respawns"},
		Opened:        {opened, "gate open"},
		Denied:        {denied, "note"},
		Permitted:     {permitted, "note"},
		NotStarted:    none,
	},
	Gone: {
		Found:         {found, "-> starting, respawns + 1; none: -> ready"},
		ReadyWord:     ignore,
		Reload:        ignore,
		StopWord:      ignore,
		MainPID:       {mainNew, "-> starting, respawns + 1; none: -> ready"},
		Stopped:       {stopNew, "stop, auto: -> starting, continue it"},
		Continued:     none,
		Ended:         {exitTold, "record how"},
		StopAsked:     {stopGone, "a respawn that is due is called off"},
		RespawnAsked:  {respawnGone, "exec: start"},
		ReloadAsked:   none,
		Forked:        none,
		PIDFileRead:   {pidFileNew, "pidfile: -> ready, respawns + 1"},
		Timer:         {timer, "respawn due; limit forgotten"},
		Resumed:       {resumeGone, "go on with a respawn"},
		Status:        none,
		Errno:         none,
		BusError:      none,
		VarlinkError:  none,
		Ping:          none,
		Trigger:       none,
		WatchdogEvery: none,
		Extend:        none,
		ResetRespawns: {resetRespawns, "forget respawns"},
		Opened:        none,
		Denied:        none,
		Permitted:     none,
		NotStarted:    {notStarted, "respawn again, counted"},
	},
}

// Table is the whole machine as a Markdown table: a row for each kind of news,
// a column for each phase.
func Table() string {
	var b strings.Builder
	b.WriteString("| news |")
	for _, p := range Phases() {
		fmt.Fprintf(&b, " %v |", p)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", int(phases)) + "\n")
	for k := range kinds {
		fmt.Fprintf(&b, "| %v |", k)
		for _, p := range Phases() {
			fmt.Fprintf(&b, " %s |", table[p][k].doc)
		}
		b.WriteString("\n")
	}
	return b.String()
}
