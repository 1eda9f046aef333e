// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The shaper: stamps each packet of a limited Pod with the time at which it may leave (earliest departure time, EDT).
// The fq qdisc behind it releases packets at their stamps. One program serves every Pod of the node: a filter's class id
// reaches it as skb->tc_classid and names the bucket: 2n is egress of slot n, 2n+1 is ingress of slot n.
//
// Compiled by bcc. The name of the function and ENTRIES come from program.py, which puts a hash of this file into the
// name, so that a restarted reconciler can tell whether what runs is what it would load.
//
// bcc brings struct __sk_buff, the helpers and the constants of uapi/linux/bpf.h; nothing else is included.

#define TC_ACT_UNSPEC (-1) // pass, and let the next filter have its say
#define TC_ACT_SHOT 2
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86DD

#define NANOSECONDS_PER_SECOND 1000000000ULL
#define OWN_STAMP_HORIZON (10 * NANOSECONDS_PER_SECOND) // as fq's own: a later stamp is of another clock

#define FLOWS 256     // cells of flows in each bucket; a power of two
#define SPARSE_SHARE 4 // a flow is sparse when it had at most 1/4 of what the fattest had
#define AGE_SHIFT 16  // flows age in units of 2^16 ns (65.5 us) ...
#define HALF_LIFE_SHIFT 10 // ... and what a flow has had halves every 2^10 of them (67 ms)

// Written by the reconciler alone. Mirrored by reconciler/kernel/buckets.py.
struct limit {
  u64 bits_per_second; // 0: not limited, packets pass
  u64 generation;      // of the slot's assignment; never 0 when the slot is in use
  u64 multiplier;      // time of n bytes on the wire, in ns: (n * multiplier) >> shift
  u64 target_ns;       // CoDel: a queue shorter than this is good
  u64 interval_ns;     // CoDel: a queue must be long for this long before it is signalled
  u64 cap_ns;          // packets that would wait longer are dropped
  u64 netns_inode;     // for the reconciler that comes next
  u32 shift;
  u32 flags;
  char pod_uid[40];
};

struct flow {
  u64 busy_until; // when the last packet of this flow leaves the bucket
  u32 had;        // bytes lately: decays
  u32 seen;       // when `had` was true, in units of 2^AGE_SHIFT ns
};

// Written by this program alone. The counters first: buckets.py reads only them.
struct state {
  u64 generation;
  u64 bytes;
  u64 packets;
  u64 drops;
  u64 marks;
  u64 next;         // the shared timeline: when the next packet may leave
  u64 express_next; // the express timeline of sparse flows, of the same rate
  u64 first_above;  // CoDel: when the queue will have been long for an interval; 0 while it is short
  u64 signal_next;  // CoDel: the next signal is due then
  u64 signals;      // CoDel: signals since the queue became long
  u64 owed;         // signals that are due and wait for a packet of the fattest flow
  u64 owed_since;
  u32 fattest;      // index of the flow that has had most
  u32 fattest_had;
  u32 fattest_seen;
  u32 reserved;
  struct flow flows[FLOWS];
};

BPF_ARRAY(limits, struct limit, ENTRIES);
BPF_ARRAY(state, struct state, ENTRIES);

// Time of `bytes` on the wire, in ns. The product stays below 2^60: bytes below 2^20, multiplier below 2^40. A fraction
// of a nanosecond is rounded up as often as it is large (the dither is a hash of the time), so no rate drifts.
static __always_inline u64 wire_time_ns(const struct limit *limit, u64 bytes, u64 now) {
  u64 dither = (now * 0x9E3779B97F4A7C15ULL) >> (64 - limit->shift);
  return (bytes * limit->multiplier + dither) >> limit->shift;
}

static __always_inline u32 decayed(u32 had, u32 age) {
  u32 halvings = age >> HALF_LIFE_SHIFT;
  if (halvings > 31)
    return 0;
  had >>= halvings;
  return had - (u32)(((u64)had * (age & ((1 << HALF_LIFE_SHIFT) - 1))) >> (HALF_LIFE_SHIFT + 1));
}

// interval / sqrt(signals), in steps: BPF has no square root.
static __always_inline u64 until_next_signal(u64 interval_ns, u64 signals) {
  u64 thousandths = 35;
  if (signals < 2) thousandths = 1000;
  else if (signals < 3) thousandths = 707;
  else if (signals < 4) thousandths = 577;
  else if (signals < 6) thousandths = 447;
  else if (signals < 9) thousandths = 353;
  else if (signals < 16) thousandths = 267;
  else if (signals < 25) thousandths = 213;
  else if (signals < 50) thousandths = 163;
  else if (signals < 100) thousandths = 115;
  else if (signals < 400) thousandths = 63;
  return interval_ns * thousandths / 1000;
}

// Charges `duration` to a timeline. While it runs ahead of the clock every CPU's charge is an atomic add, so none is
// lost. Only a timeline that lags, of a bucket that was idle, is set: no burst is saved up, and at that moment there is
// no queue that a lost charge could make longer than the limit allows.
static __always_inline void charge(u64 *timeline, u64 start, u64 now, u64 duration) {
  if (start > now)
    __sync_fetch_and_add(timeline, duration);
  else
    *timeline = now + duration;
}

// The packet leaves at `start`, or at the time its sender paced it for when that is later (SO_MAX_PACING_RATE, BBR,
// SO_TXTIME). On ingress a stamp may be a receive time on another clock: it is not looked at.
static __always_inline void stamp(struct __sk_buff *skb, int is_ingress, u64 start, u64 now) {
#ifndef NO_SET_TSTAMP
  if (!is_ingress) {
    u64 own = skb->tstamp;
    if (own > start && own < now + OWN_STAMP_HORIZON)
      return;
  }
  if (start > now)
    bpf_skb_set_tstamp(skb, start, BPF_SKB_TSTAMP_DELIVERY_MONO);
#else // before Linux 5.18: the plain write
  u64 own = is_ingress ? 0 : skb->tstamp;
  if (start > now && (own <= start || own >= now + OWN_STAMP_HORIZON))
    skb->tstamp = start;
#endif
}

// CoDel, decided at enqueue: on a timeline the time that a packet will wait is known when it comes. Returns whether a
// signal is to be given to this packet.
static __always_inline int signal_due(const struct limit *limit, struct state *state, u64 wait, u64 duration, u64 now,
                                      int is_fattest) {
  // A queue of two packets such as this is no queue (Linux's codel says one: backlog <= maxpacket). With GRO a packet has
  // up to 45 segments and takes longer than the target; a sender with two of them in flight, one leaving and one on its
  // way, has no more to give without leaving the link idle.
  if (wait < limit->target_ns || wait <= 2 * duration) {
    state->first_above = 0;
    state->owed = 0;
    if (state->signals > 2)
      state->signals -= 1;
    return 0;
  }
  if (!state->first_above) {
    state->first_above = now + limit->interval_ns;
    return 0;
  }
  if (now >= state->first_above && now >= state->signal_next) {
    if (!state->owed)
      state->owed_since = now;
    state->owed += 1;
    state->signals += 1;
    state->signal_next = now + until_next_signal(limit->interval_ns, state->signals);
  }
  if (!state->owed)
    return 0;
  // The flow that has had most pays; any flow does when that one stays silent for half an interval.
  if (!is_fattest && now - state->owed_since <= limit->interval_ns / 2)
    return 0;
  state->owed -= 1;
  state->owed_since = now;
  return 1;
}

static __always_inline int drop(struct state *state) {
  __sync_fetch_and_add(&state->drops, 1);
  return TC_ACT_SHOT;
}

static __always_inline int pass(struct state *state, u64 bytes, u32 segments) {
  __sync_fetch_and_add(&state->bytes, bytes);
  __sync_fetch_and_add(&state->packets, segments ? segments : 1);
  return TC_ACT_UNSPEC;
}

static __always_inline void begin_generation(struct state *state, u64 generation) {
  state->bytes = state->packets = state->drops = state->marks = 0;
  state->next = state->express_next = 0;
  state->first_above = state->signal_next = state->signals = state->owed = state->owed_since = 0;
  state->fattest = state->fattest_had = state->fattest_seen = 0;
  state->generation = generation; // the flows need no reset: what they had decays by itself
}

int SHAPER_NAME(struct __sk_buff *skb) {
  u32 bucket = skb->tc_classid;
  struct limit *limit = limits.lookup(&bucket);
  struct state *held = state.lookup(&bucket);
  if (!limit || !held || !limit->bits_per_second)
    return TC_ACT_UNSPEC;
  if (held->generation != limit->generation)
    begin_generation(held, limit->generation);

  int is_ingress = bucket & 1;
  u64 now = bpf_ktime_get_ns();
  u64 bytes = skb->wire_len;
  u64 duration = wire_time_ns(limit, bytes, now);
  // Further ahead than this rate could bring it: the timeline is that of a much lower rate, which was raised since.
  if (held->next > now + limit->cap_ns + 2 * limit->interval_ns)
    held->next = held->express_next = now;
  u64 start = held->next > now ? held->next : now;
  u64 wait = start - now;
  u16 ethertype = bpf_ntohs(skb->protocol);

  // ARP and whatever else cannot be stamped is charged and never waits.
  if (ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6) {
    charge(&held->next, start, now, duration);
    return pass(held, bytes, skb->gso_segs);
  }

  u32 hash = bpf_get_hash_recalc(skb);
  hash ^= hash >> 16;
  hash ^= hash >> 8;
  u32 index = hash & (FLOWS - 1);
  struct flow *flow = &held->flows[index];
  u32 age = (u32)(now >> AGE_SHIFT);
  u64 had_now = decayed(flow->had, age - flow->seen) + bytes;
  u32 had = had_now > 0xffffffffULL ? 0xffffffffU : (u32)had_now;
  u32 fattest_had = decayed(held->fattest_had, age - held->fattest_seen);
  int is_fattest = index == held->fattest || had >= fattest_had;

  // A flow that has had little, and of which nothing waits, goes ahead of the queue. What it sends is limited to the
  // rate by the express timeline, and charged to the shared one.
  u64 express = held->express_next > now ? held->express_next : now;
  if (wait && express < start && express >= flow->busy_until && !is_fattest && (u64)had * SPARSE_SHARE <= fattest_had) {
    flow->had = had;
    flow->seen = age;
    flow->busy_until = express;
    charge(&held->express_next, express, now, duration);
    charge(&held->next, start, now, duration);
    stamp(skb, is_ingress, express, now);
    return pass(held, bytes, skb->gso_segs);
  }

  if (wait > limit->cap_ns)
    return drop(held);
  if (signal_due(limit, held, wait, duration, now, is_fattest)) {
    if (!bpf_skb_ecn_set_ce(skb))
      return drop(held);
    __sync_fetch_and_add(&held->marks, 1);
  }

  flow->had = had;
  flow->seen = age;
  flow->busy_until = start;
  if (is_fattest) {
    held->fattest = index;
    held->fattest_had = had;
    held->fattest_seen = age;
  }
  charge(&held->next, start, now, duration);
  stamp(skb, is_ingress, start, now);
  return pass(held, bytes, skb->gso_segs);
}
