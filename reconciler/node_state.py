"""The state of this node's Pods as runtime, API server and kernel report it, and what is applied. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.desired import DesiredLimits, desired_limits
from reconciler.pods import PodView
from reconciler.ran_unlimited import RanUnlimited
from reconciler.report import Applied, Notice
from reconciler.sandbox_state import SandboxState
from reconciler.sandboxes import Key, Sandbox, Sandboxes
from reconciler.unreported import UnreportedPods
from webhook.common.contract import Limits


class PodCounts(NamedTuple):
    """How many sandboxes ask for a limit; have all that they ask for, some of it, or nothing of it; are not on ipvlan.

    One that has a limit, and failed to get another, counts as failed.
    """

    wanted: int
    shaped: int
    partial: int
    failed: int
    no_ipvlan: int = 0


@dataclass(slots=True)
class NodeState:
    """Sandboxes as the runtime reports them, Pods as the API server does, and for each sandbox what is in force."""

    sandboxes: Sandboxes = field(default_factory=Sandboxes)
    ran_unlimited: RanUnlimited = field(default_factory=RanUnlimited)
    _unreported: UnreportedPods = field(default_factory=UnreportedPods)
    _views: dict[str, PodView] = field(default_factory=dict)
    _last_good: dict[str, Limits] = field(default_factory=dict)
    _states: dict[Key, SandboxState] = field(default_factory=dict)
    """The key has an empty path for a sandbox without a netns, or whose netns the runtime does not name."""
    _unmatched: dict[Key, tuple[Limits, Limits | None]] = field(default_factory=dict)
    """What the kernel holds for Pods that have not been reported yet: see `adopt`."""
    expects_new_sandbox: bool = False
    """Whether a Pod that is listed without a netns, or with one that is not visible, may be about to get another."""
    _awaits_list: bool = True
    """Whether to wait for the API server's first list."""
    _listed: bool = False
    """Whether the API server has listed this node's Pods."""

    def on_started(self, sandbox: Sandbox) -> None:
        """The runtime reports a sandbox at its start: what it says is up to date."""
        self.sandboxes.add(sandbox)
        self._unreported.on_reported(sandbox.pod.uid)
        if sandbox.netns_path:
            state = self._entry(sandbox.key)
            state.started |= sandbox.key not in self.ran_unlimited
            state.netns_seen, state.awaiting_api_server, state.unreadable = None, False, False
        for key in (sandbox.key, Key("", sandbox.netns_path)):
            self._unmatched.pop(key, None)

    def on_stopped(self, sandbox: Sandbox) -> None:
        """The runtime reports the end of a sandbox."""
        self.sandboxes.on_stopped(sandbox)
        self._unreported.on_reported(sandbox.pod.uid)

    def on_hook_timeout(self, key: Key, now_s: float) -> None:
        """The runtime no longer waits for the hook of a new sandbox; the sandbox may not be reported yet."""
        if (state := self._states.get(key)) is not None:
            state.started = False
        self.ran_unlimited.add([key], since_s=now_s)

    def on_synchronized(self, sandboxes: Iterable[Sandbox]) -> None:
        """The runtime's full list."""
        told, before = list(sandboxes), {sandbox.key for sandbox in self.sandboxes}
        self.sandboxes.synchronize(told)
        self._unreported.on_synchronized(each.pod.uid for each in told)
        listed = {each.key for each in told}
        for key, state in self._states.items():
            state.started &= key in listed
        if self._awaits_list:
            for key in {sandbox.key for sandbox in self.sandboxes} - before:
                self._entry(key).awaiting_api_server = True
        # A later list may have a sandbox that an earlier one left out: containerd omits those of unknown state.
        self._match(self._unmatched)
        new = [sandbox for sandbox in self.sandboxes if sandbox.key not in before]
        self.ran_unlimited.add(each.key for each in new if self.started_unlimited(each))
        started, unplaced = self.sandboxes.started_without_netns(), self.sandboxes.listed_without_netns()
        unlocated = {sandbox.key for sandbox in (*started, *unplaced, *self._missing())}
        self._states = {key: state for key, state in self._states.items() if key.has_netns or key in unlocated}
        never_seen = (not self._peek(sandbox.key).netns_seen for sandbox in self.sandboxes)
        self.expects_new_sandbox = bool(unplaced) or any(never_seen)

    def check_unreported(self) -> list[str]:
        """Call it periodically: returns the running Pods that the runtime has not named since the check before last."""
        asking = {uid for uid, view in self._views.items() if view.running and desired_limits(view, Limits()).limits}
        self._unreported.check(
            asking,
            known=self._views.keys(),
            there=self.sandboxes.uids(),
            has_unidentified=not all(key.has_owner for key in self._unmatched),
        )
        return [sandbox.pod.uid for sandbox in self._missing()]

    def _missing(self) -> tuple[Sandbox, ...]:
        """Placeholders for the sandboxes of unreported Pods: they have no id."""
        return tuple(Sandbox("", self._views[uid], "") for uid in self._unreported.missing & self._views.keys())

    def stop_expecting_new_sandboxes(self) -> None:
        """A Pod whose sandbox has ended has another by now, if the Pod still runs."""
        self.expects_new_sandbox = False

    def awaits_api_server(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox is judged only once the API server has reported its Pod.

        Its limit may have been removed since it started. No need to wait if the kernel holds limits: those are newer.
        """
        return self._peek(sandbox.key).awaiting_api_server and sandbox.pod.uid not in self._views

    def stop_awaiting_api_server(self) -> list[str]:
        """From now on what the runtime says counts for Pods the API server has not reported. Returns those that waited.

        Pods that may have limits in force that cannot be read go on waiting: the runtime may not know these limits.
        """
        return self._stop_awaiting(also_unreadable=False)

    def _stop_awaiting(self, *, also_unreadable: bool) -> list[str]:
        waited = [
            key
            for key, state in self._states.items()
            if state.awaiting_api_server and (also_unreadable or not state.unreadable)
        ]
        for key in waited:
            self._states[key].awaiting_api_server = False
        self._awaits_list = False
        return [key.pod_uid for key in waited]

    def on_listed(self, views: Iterable[PodView]) -> tuple[list[str], list[str]]:
        """The API server's full list. Returns the uids of Pods to reconcile, and of Pods that are gone."""
        before, self._views = self._views, {view.uid: view for view in views}
        self._listed = True
        self._match(self._unmatched)
        gone = [uid for uid in before if uid not in self._views]
        for uid in gone:
            self.sandboxes.keep_last_view(before[uid])
            self._forget_last_good(uid)
        changed = [uid for uid, view in self._views.items() if before.get(uid) != view]
        return [*changed, *self._stop_awaiting(also_unreadable=True)], gone

    def on_seen(self, view: PodView) -> bool:
        """The API server reports a Pod. Returns whether that is news."""
        news = self._views.get(view.uid) != view
        self._views[view.uid] = view
        self._match(key for key in self._unmatched if key.pod_uid == view.uid)
        return news

    def on_deleted(self, view: PodView) -> None:
        """A Pod is deleted or finished. Its sandboxes may last a while: they keep the Pod's last state."""
        self._views.pop(view.uid, None)
        self.sandboxes.keep_last_view(view)
        self._forget_last_good(view.uid)

    def view(self, sandbox: Sandbox) -> PodView:
        """A sandbox's Pod as the API server reports it, else as it is known without the API server."""
        return self._views.get(sandbox.pod.uid) or self.sandboxes.current(sandbox).pod

    def desired(self, sandbox: Sandbox) -> DesiredLimits:
        """What a sandbox should have."""
        return desired_limits(self.view(sandbox), self._last_good.get(sandbox.pod.uid, Limits()))

    def applied(self, sandbox: Sandbox) -> Applied:
        """What is in force for a sandbox."""
        return self._peek(sandbox.key).applied

    def has_its_limits(self, sandbox: Sandbox) -> bool:
        """Whether exactly what it asks for is in force, as far as known."""
        return self.applied(sandbox).limits == self.desired(sandbox).limits

    def on_reconciling(self, sandbox: Sandbox, wanted: DesiredLimits) -> None:
        """A sandbox is being given what it should have."""
        self._entry(sandbox.key).wanted = wanted

    def is_up_to_date(self, sandbox: Sandbox) -> bool:
        """Whether nothing is to be done for it in the kernel: it was, or is being, given all it should have now."""
        state = self._peek(sandbox.key)
        is_open = state.failures or state.unverified or state.applied.withheld or sandbox.key in self.ran_unlimited
        return bool(state.netns_seen) and not is_open and state.wanted == self.desired(sandbox)

    def started_unlimited(self, sandbox: Sandbox) -> bool:
        """Whether it asked for a limit at its start, by the runtime's word, and was not given any possible limit."""
        if self.applied(sandbox).asked or self._peek(sandbox.key).unreadable:
            return False
        return bool(desired_limits(sandbox.pod, Limits()).limits)

    def adopt(self, key: Key, wanted: Limits, in_force: Limits | None) -> None:
        """The kernel holds something for this netns: wanted limits, and those in force (None: cannot be read).

        They stay until the API server says otherwise, as only it knows of changes. If no limits are known, its list is
        awaited. A key without a uid is of a netns whose owner could not be read: the runtime may name it.
        """
        if not key.has_owner and (there := self.sandboxes.at(key.netns_path)) is not None:
            if self._peek(there.key).started:  # a netns that has just been made holds nothing of ours
                return
            key = there.key
        if self.sandboxes.has_stopped(key):
            return
        if self.sandboxes.place(key, self._views.get(key.pod_uid)):
            self.ran_unlimited.add([key])  # taken back below if it turns out to have been limited all along
            if (told := self._states.pop(Key(key.pod_uid, ""), None)) is not None:  # of a failure, without its netns
                found = self._entry(key)
                found.failures, found.failure = told.failures, told.failure
        if not any(sandbox.key == key for sandbox in self.sandboxes.of(key.pod_uid)):
            self._unmatched[key] = wanted, in_force
            return
        state = self._entry(key)
        state.unverified = state.netns_seen = True
        if wanted and self.sandboxes.adopt(key, wanted):
            state.awaiting_api_server = False
            self._last_good[key.pod_uid] = wanted
        if in_force:
            state.applied = Applied(in_force)
        elif in_force is None:
            state.unreadable = True
            state.awaiting_api_server |= not self._listed
            self.ran_unlimited.forget(key)

    def _match(self, keys: Iterable[Key]) -> None:
        """Adopt what was found for these keys: their Pods may have been reported by now."""
        for key, held in [(key, self._unmatched.pop(key)) for key in list(keys)]:
            self.adopt(key, *held)

    def unlocated(self, uid: str | None = None) -> tuple[Sandbox, ...]:
        """The sandboxes (of all Pods, or of one) that ask for a limit and whose netns the runtime does not name.

        Sandboxes from before that have ended have no netns either: only the API server knows which Pods run.
        """
        started = self.sandboxes.started_without_netns()
        listed = () if self.expects_new_sandbox else self.sandboxes.listed_without_netns()
        return tuple(
            sandbox
            for sandbox in (*started, *listed, *self._missing())
            if uid in {None, sandbox.pod.uid}
            and (view := self._views.get(sandbox.pod.uid)) is not None
            and (view.running or sandbox in started)
            and desired_limits(view, Limits()).limits
        )

    def on_netns_looked_up(self, sandbox: Sandbox, *, is_there: bool) -> None:
        """The netns of a sandbox was looked up."""
        state = self._entry(sandbox.key)
        state.netns_seen = is_there or bool(state.netns_seen)

    def is_gone(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox whose netns is not there has ended. A netns that was never seen may just be invisible.

        One that asks for no limit is not kept for that: its end may never be told, as where another NRI plugin fails,
        and nobody looked at the netns of a short-lived one while it was there.
        """
        state = self._peek(sandbox.key)
        is_awaited = state.started and bool(self.desired(sandbox).limits)
        is_known = is_awaited or sandbox.pod.uid in self._views or not self._listed
        return bool(state.netns_seen) or not is_known

    def is_netns_unseen(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox exists, though its netns is not visible and never was.

        Sandboxes that the runtime only lists, and that have ended, have no netns either: see `unlocated`.
        """
        state = self._peek(sandbox.key)
        if sandbox not in self.sandboxes or state.netns_seen:
            return False
        if state.started:
            return True
        all_of_it, view = self.sandboxes.of(sandbox.pod.uid), self._views.get(sandbox.pod.uid)
        is_latest = sandbox.id == all_of_it[-1].id and not any(self._peek(each.key).netns_seen for each in all_of_it)
        return is_latest and view is not None and view.running and not self.expects_new_sandbox

    def is_settled(self, sandbox: Sandbox) -> bool:
        """Whether nothing was asked for, nothing failed, and the kernel holds nothing unknown."""
        state = self._peek(sandbox.key)
        return not (state.applied.asked or state.failures or state.unverified)

    def is_failing(self, sandbox: Sandbox) -> bool:
        """Whether it could not be given what it should have when that was last tried."""
        return bool(self._peek(sandbox.key).failures)

    def on_failed(self, sandbox: Sandbox, message: str) -> tuple[int, bool]:
        """A sandbox could not be given what it should have: `message` tells its owner.

        Returns how many times in a row that happened before, and whether the reason is a new one.
        """
        state = self._entry(sandbox.key)
        count, before = state.failures, state.failure
        state.failures, state.failure = count + 1, message
        return count, message != before

    def on_succeeded(
        self,
        sandbox: Sandbox,
        wanted: Limits,
        after: Applied,
        *,
        now_s: float,
        netns_created_s: float,
        fails: bool = False,
    ) -> None:
        """A sandbox has as much as possible of what it should have: `after`. It did not exist before `netns_created_s`.

        Times are seconds since the epoch. `fails`: it was not given all, and will be tried again.
        """
        state = self._entry(sandbox.key)
        self.ran_unlimited.on_reconciled(
            sandbox.key,
            newly_limited=bool(after.limits) and not state.applied.limits,
            has_ended=self.view(sandbox).ended,
            now_s=now_s,
            netns_created_s=netns_created_s,
        )
        if not fails:
            state.failures, state.failure = 0, ""
        state.unverified, state.unreadable, state.netns_seen, state.applied = False, False, True, after
        # An interface may be gone for a moment only, so the last good limits are those wanted last.
        self._last_good[sandbox.pod.uid] = wanted

    def standing(self) -> Iterator[tuple[Sandbox, tuple[Notice, ...], str]]:
        """The events that still hold for each sandbox: notices, and what its owner was told of a failure, if so.

        A sandbox that no longer asks for a limit, and has none, lacks nothing.
        """
        there = [each for each in self.sandboxes if self._may_be_there(each) and not self.view(each).ended]
        for sandbox in (*there, *self.unlocated()):
            applied = self.applied(sandbox)
            lacks = self.desired(sandbox).limits or applied.asked
            yield sandbox, applied.notices, self._peek(sandbox.key).failure if lacks else ""

    def forget(self, sandbox: Sandbox) -> None:
        """A sandbox was forgotten."""
        self._states.pop(sandbox.key, None)
        self.ran_unlimited.forget(sandbox.key)
        self._forget_last_good(sandbox.pod.uid)

    def _forget_last_good(self, uid: str) -> None:
        """Not while the Pod is known: it may be given another sandbox, which is to have the same limits."""
        if not self.has(uid):
            self._last_good.pop(uid, None)
            self._states.pop(Key(uid, ""), None)

    def _peek(self, key: Key) -> SandboxState:
        """The state of a sandbox, to be read: what is written to that of an unknown one is lost."""
        return self._states.get(key) or SandboxState()

    def _entry(self, key: Key) -> SandboxState:
        """The stored state of a sandbox, to be changed."""
        return self._states.setdefault(key, SandboxState())

    def has(self, uid: str) -> bool:
        """Whether the API server or the runtime knows a Pod."""
        return uid in self._views or bool(self.sandboxes.of(uid))

    def limited(self) -> list[Sandbox]:
        """The sandboxes that have limits now, or would have them if nothing were in the way."""
        return [sandbox for sandbox in self.sandboxes if self.applied(sandbox).asked]

    def pod_counts(self) -> PodCounts:
        """The numbers of sandboxes that ask for a limit, by state."""
        asking = [each for each in self.sandboxes if self.desired(each).limits and self._may_be_there(each)]
        states = Counter(self._state(sandbox) for sandbox in (*asking, *self.unlocated()))
        return PodCounts(states.total(), *(states[state] for state in PodCounts._fields[1:]))

    def _may_be_there(self, sandbox: Sandbox) -> bool:
        return (
            self._peek(sandbox.key).netns_seen is not False or self.expects_new_sandbox or self.is_netns_unseen(sandbox)
        )

    def _state(self, sandbox: Sandbox) -> str:
        """The state of a sandbox; empty before the first reconcile, and for a Pod without ipvlan that has ended."""
        applied = self.applied(sandbox)
        if applied.withheld:
            return "partial" if applied.limits or applied.in_part else "failed"
        if self._peek(sandbox.key).failures:
            return "failed"
        if applied.limits:
            return "shaped"
        return "no_ipvlan" if applied.is_without_ipvlan and not self._has_ended(sandbox) else ""

    def _has_ended(self, sandbox: Sandbox) -> bool:
        """Whether a Pod has ended, so that the CNI may have taken its interfaces away; its netns may still be there.

        The API server does not report Pods that have finished, nor static ones by this uid.
        """
        view = self.view(sandbox)
        return view.ended or (self._listed and sandbox.pod.uid not in self._views and not view.static)
