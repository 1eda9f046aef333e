"""What is known of this node's Pods: by the runtime, the API server and the kernel, and what came of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.intent import Intent, intent
from reconciler.latecomers import Latecomers
from reconciler.pods import PodView
from reconciler.report import Applied, Notice
from reconciler.roll_call import RollCall
from reconciler.sandboxes import Key, Sandbox, Sandboxes
from reconciler.state import State
from webhook.contract import Limits


class Wanted(NamedTuple):
    """How many sandboxes ask for a limit, have all that they ask for, have some of it, and have nothing of it.

    One that has a limit, and failed to get another, counts as failed.
    """

    wanted: int
    shaped: int
    partial: int
    failed: int


@dataclass(slots=True)
class Known:
    """Sandboxes by the runtime's word, Pods by the API server's, and for each sandbox what is in force."""

    sandboxes: Sandboxes = field(default_factory=Sandboxes)
    latecomers: Latecomers = field(default_factory=Latecomers)
    _roll: RollCall = field(default_factory=RollCall)
    _views: dict[str, PodView] = field(default_factory=dict)
    _last_good: dict[str, Limits] = field(default_factory=dict)
    _states: dict[Key, State] = field(default_factory=dict)
    """Under a Pod's uid alone stands what has no netns, or none that the runtime names."""
    _unclaimed: dict[Key, tuple[Limits, Limits | None]] = field(default_factory=dict)
    """What the kernel was found to hold for Pods that nobody has told of yet: as of `adopt`."""
    expects_next: bool = False
    """Whether a Pod that is listed without a netns, or with one that is not seen, may be about to get another."""
    _hears_out: bool = True
    """Whether the API server's first list is waited for."""
    _listed: bool = False
    """Whether it has come."""

    def began(self, sandbox: Sandbox) -> None:
        """The runtime tells of a sandbox as it begins: it is as it is told."""
        self.sandboxes.add(sandbox)
        self._roll.named(sandbox.pod.uid)
        if sandbox.netns_path:
            state = self._kept(sandbox.key)
            state.begun |= sandbox.key not in self.latecomers
            state.seen, state.unheard, state.unread = None, False, False
        for key in (sandbox.key, ("", sandbox.netns_path)):
            self._unclaimed.pop(key, None)

    def stopped(self, sandbox: Sandbox) -> None:
        """The runtime tells of the end of a sandbox."""
        self.sandboxes.stopped(sandbox)
        self._roll.named(sandbox.pod.uid)

    def late(self, key: Key, now_s: float) -> None:
        """The runtime no longer waits for what is to be done as a sandbox begins, which it may be about to tell of."""
        self._of(key).begun = False
        self.latecomers.found([key], since_s=now_s)

    def replayed(self, sandboxes: Iterable[Sandbox]) -> None:
        """The runtime's full list."""
        told, before = list(sandboxes), {sandbox.key for sandbox in self.sandboxes}
        self.sandboxes.replay(told)
        self._roll.replayed(each.pod.uid for each in told)
        listed = {each.key for each in told}
        for key, state in self._states.items():
            state.begun &= key in listed
        if self._hears_out:
            for key in {sandbox.key for sandbox in self.sandboxes} - before:
                self._kept(key).unheard = True
        # A list may leave one out that a later one has: containerd does whose state it cannot tell at the moment.
        self._claim(self._unclaimed)
        new = [sandbox for sandbox in self.sandboxes if sandbox.key not in before]
        self.latecomers.found(each.key for each in new if self.began_unlimited(each))
        lost = {sandbox.key for sandbox in (*self.sandboxes.nowhere(), *self.sandboxes.unplaced(), *self._missing())}
        self._states = {key: state for key, state in self._states.items() if key[1] or key in lost}
        never_seen = (not self._of(sandbox.key).seen for sandbox in self.sandboxes)
        self.expects_next = bool(self.sandboxes.unplaced()) or any(never_seen)

    def call_the_roll(self) -> list[str]:
        """To be done now and then: gives the Pods that run, and that the runtime has not named all the while."""
        asking = {uid for uid, view in self._views.items() if view.running and intent(view, Limits()).limits}
        self._roll.call(asking, known=self._views.keys(), there=self.sandboxes.uids())
        return [sandbox.pod.uid for sandbox in self._missing()]

    def _missing(self) -> tuple[Sandbox, ...]:
        """What stands for the sandboxes of those: it has no id."""
        return tuple(Sandbox("", self._views[uid], "") for uid in self._roll.missing & self._views.keys())

    def expect_no_next(self) -> None:
        """Whose sandbox has ended has another by now, as far as its Pod runs."""
        self.expects_next = False

    def waits(self, sandbox: Sandbox) -> bool:
        """Whether it is judged only when the API server has told of its Pod.

        Its limit may have been taken away since it began. What the kernel holds is newer, so then there is no need.
        """
        return self._of(sandbox.key).unheard and sandbox.pod.uid not in self._views

    def wait_no_longer(self) -> list[str]:
        """From now on the runtime's word counts where the API server has given none. Gives the Pods that waited.

        Those go on waiting that may have limits which cannot be read, and which it may not know of.
        """
        return self._heard(also_unread=False)

    def _heard(self, *, also_unread: bool) -> list[str]:
        waited = [key for key, state in self._states.items() if state.unheard and (also_unread or not state.unread)]
        for key in waited:
            self._states[key].unheard = False
        self._hears_out = False
        return [uid for uid, _ in waited]

    def listed(self, views: Iterable[PodView]) -> tuple[list[str], list[str]]:
        """The API server's full list. Gives the uids of Pods to look at, and of those that are gone."""
        before, self._views = self._views, {view.uid: view for view in views}
        self._listed = True
        self._claim(self._unclaimed)
        gone = [uid for uid in before if uid not in self._views]
        for uid in gone:
            self.sandboxes.learn(before[uid])
            self._forget_last_good(uid)
        changed = [uid for uid, view in self._views.items() if before.get(uid) != view]
        return [*changed, *self._heard(also_unread=True)], gone

    def seen(self, view: PodView) -> bool:
        """The API server tells of a Pod. Whether that is news."""
        news = self._views.get(view.uid) != view
        self._views[view.uid] = view
        self._claim((uid, path) for uid, path in self._unclaimed if uid == view.uid)
        return news

    def deleted(self, view: PodView) -> None:
        """The API server no longer knows a Pod, or it has finished. Its sandboxes may last a while: it is as it was."""
        self._views.pop(view.uid, None)
        self.sandboxes.learn(view)
        self._forget_last_good(view.uid)

    def view(self, sandbox: Sandbox) -> PodView:
        """A Pod as the API server tells of it, or as it is known without."""
        return self._views.get(sandbox.pod.uid) or self.sandboxes.current(sandbox).pod

    def intent(self, sandbox: Sandbox) -> Intent:
        """What a sandbox should have."""
        return intent(self.view(sandbox), self._last_good.get(sandbox.pod.uid, Limits()))

    def applied(self, sandbox: Sandbox) -> Applied:
        """What is in force for a sandbox."""
        return self._of(sandbox.key).applied

    def began_unlimited(self, sandbox: Sandbox) -> bool:
        """Whether it asked for a limit when it began, by the runtime's word, and was not given any that can be had."""
        if self.applied(sandbox).asked or self._of(sandbox.key).unread:
            return False
        return bool(intent(sandbox.pod, Limits()).limits)

    def adopt(self, key: Key, wanted: Limits, in_force: Limits | None) -> None:
        """The kernel holds something for this netns: limits that were to be, and those in force; None: cannot be read.

        They stay until the API server says otherwise, which alone knows of changes. Where none are known, it is waited
        for. A key without a uid is of a netns that does not tell whose it is: the runtime may.
        """
        uid, path = key
        if not uid and (there := self.sandboxes.at(path)) is not None:
            if self._of(there.key).begun:  # nothing is ours in a netns that has just been made
                return
            key = uid, path = there.key
        if self.sandboxes.has_stopped(key):
            return
        if self.sandboxes.place(key, self._views.get(uid)):
            self.latecomers.found([key])  # unless it turns out to have been limited all along
        if not any(sandbox.key == key for sandbox in self.sandboxes.of(uid)):
            self._unclaimed[key] = wanted, in_force
            return
        state = self._kept(key)
        state.unsure = state.seen = True
        if wanted and self.sandboxes.adopt(key, wanted):
            state.unheard = False
            self._last_good[uid] = wanted
        if in_force:
            state.applied = Applied(in_force)
        elif in_force is None:
            state.unread = True
            state.unheard |= not self._listed
            self.latecomers.forget(key)

    def _claim(self, keys: Iterable[Key]) -> None:
        """Somebody may have told of them by now."""
        for key, held in [(key, self._unclaimed.pop(key)) for key in list(keys)]:
            self.adopt(key, *held)

    def lost(self, uid: str | None = None) -> tuple[Sandbox, ...]:
        """The sandboxes of Pods, or of one, that ask for a limit and have a netns, which the runtime does not name.

        Of those that were there before, the ones that have ended have none: only the API server tells which run.
        """
        nowhere, unplaced = self.sandboxes.nowhere(), () if self.expects_next else self.sandboxes.unplaced()
        return tuple(
            sandbox
            for sandbox in (*nowhere, *unplaced, *self._missing())
            if uid in {None, sandbox.pod.uid}
            and (view := self._views.get(sandbox.pod.uid)) is not None
            and (view.running or sandbox in nowhere)
            and intent(view, Limits()).limits
        )

    def looked_for(self, sandbox: Sandbox, *, is_there: bool) -> None:
        """The netns of a sandbox was looked for."""
        state = self._kept(sandbox.key)
        state.seen = is_there or bool(state.seen)

    def is_gone(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox whose netns is not there has ended. If that was never seen, it may be out of sight only."""
        state = self._of(sandbox.key)
        is_known = state.begun or sandbox.pod.uid in self._views or not self._listed
        return bool(state.seen) or not is_known

    def is_out_of_sight(self, sandbox: Sandbox) -> bool:
        """Whether a sandbox is there, though its netns is not and never was.

        Of those that the runtime only lists, the ones that have ended have none either: as for those that are `lost`.
        """
        state = self._of(sandbox.key)
        if sandbox not in self.sandboxes or state.seen:
            return False
        if state.begun:
            return True
        all_of_it, view = self.sandboxes.of(sandbox.pod.uid), self._views.get(sandbox.pod.uid)
        is_latest = sandbox.id == all_of_it[-1].id and not any(self._of(each.key).seen for each in all_of_it)
        return is_latest and view is not None and view.running and not self.expects_next

    def is_settled(self, sandbox: Sandbox) -> bool:
        """Whether nothing was asked for, nothing failed, and the kernel holds nothing that is not known."""
        state = self._of(sandbox.key)
        return not (state.applied.asked or state.failures or state.unsure)

    def failed(self, sandbox: Sandbox, why: str) -> tuple[int, bool]:
        """A sandbox could not be given what it should have.

        Gives how often that has happened before, one after the other, and whether for another reason than now.
        """
        state = self._kept(sandbox.key)
        count, before = state.failures, state.why
        state.failures, state.why = count + 1, why
        return count, why != before

    def succeeded(
        self,
        sandbox: Sandbox,
        wanted: Limits,
        after: Applied,
        *,
        now_s: float,
        there_since_s: float,
        fails: bool = False,
    ) -> None:
        """A sandbox has what can be had of what it should have: `after`. It was not there before `there_since_s`.

        Times are seconds since the epoch. `fails`: it was not given all, and is to be tried again.
        """
        state = self._kept(sandbox.key)
        self.latecomers.looked_at(
            sandbox.key,
            newly_limited=bool(after.limits) and not state.applied.limits,
            has_ended=self.view(sandbox).ended,
            now_s=now_s,
            there_since_s=there_since_s,
        )
        if not fails:
            state.failures, state.why = 0, ""
        state.unsure, state.unread, state.seen, state.applied = False, False, True, after
        # An interface may be gone for a moment only: the last good limits are those that were wanted last.
        self._last_good[sandbox.pod.uid] = wanted

    def standing(self) -> Iterator[tuple[Sandbox, tuple[Notice, ...], str]]:
        """What stands of what Pods were told: notices, and why one is not limited as asked, if it is not."""
        there = [each for each in self.sandboxes if self._may_be_there(each) and not self.view(each).ended]
        for sandbox in (*there, *self.lost()):
            yield sandbox, self.applied(sandbox).notices, self._of(sandbox.key).why

    def forget(self, sandbox: Sandbox) -> None:
        """A sandbox was let go."""
        self._states.pop(sandbox.key, None)
        self.latecomers.forget(sandbox.key)
        self._forget_last_good(sandbox.pod.uid)

    def _forget_last_good(self, uid: str) -> None:
        """Unless the Pod may be given another sandbox, which is to have it too."""
        if not self.has(uid):
            self._last_good.pop(uid, None)
            self._states.pop((uid, ""), None)

    def _of(self, key: Key) -> State:
        return self._states.get(key) or State()

    def _kept(self, key: Key) -> State:
        """For whoever changes it."""
        return self._states.setdefault(key, State())

    def has(self, uid: str) -> bool:
        """Whether a Pod is known to anyone."""
        return uid in self._views or bool(self.sandboxes.of(uid))

    def limited(self) -> list[Sandbox]:
        """The sandboxes that have limits now, or would but for what is in the way."""
        return [sandbox for sandbox in self.sandboxes if self.applied(sandbox).asked]

    def wanted(self) -> Wanted:
        """How the sandboxes fare that ask for a limit."""
        asking = [each for each in self.sandboxes if self.intent(each).limits and self._may_be_there(each)]
        states = Counter(self._state(sandbox) for sandbox in (*asking, *self.lost()))
        return Wanted(states.total(), **{state: states[state] for state in ("shaped", "partial", "failed")})

    def _may_be_there(self, sandbox: Sandbox) -> bool:
        return self._of(sandbox.key).seen is not False or self.expects_next or self.is_out_of_sight(sandbox)

    def _state(self, sandbox: Sandbox) -> str:
        """Of those without an ipvlan interface there is none, nor of those that are still to be looked at."""
        applied = self.applied(sandbox)
        if applied.withheld:
            return "partial" if applied.limits or applied.in_part else "failed"
        if self._of(sandbox.key).failures:
            return "failed"
        return "shaped" if applied.limits else ""
