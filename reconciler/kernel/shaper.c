// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The shaper: stamps each packet of a limited Pod with the time at which it may leave (earliest departure time, EDT).
// The fq qdisc behind it releases packets at their stamps. One program serves every Pod of the node: a filter's class
// id reaches it as skb->tc_classid and names the bucket: 2n is egress of slot n, 2n+1 is ingress of slot n.
//
// Compiled by bcc. The name of the function and ENTRIES come from program.py, which puts a hash of this file into the
// name, so that a restarted reconciler can tell whether what runs is what it would load.
//
// bcc brings struct __sk_buff, the helpers and the constants of uapi/linux/bpf.h; nothing else is included.

#define TC_ACT_UNSPEC (-1) // pass, and let the next filter have its say
#define TC_ACT_SHOT 2
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86DD
#define ETHERTYPE_ARP 0x0806
#define SOCK_STREAM 1
#define SOCK_RAW 3
#define AF_INET 2
#define AF_INET6 10
#define TCP_CLOSE 7 // also the state of any other socket that is connected to nobody

#define NANOSECONDS_PER_SECOND 1000000000ULL
#define NEVER (~0ULL)
#define OWN_STAMP_HORIZON (1 * NANOSECONDS_PER_SECOND) // a sender's own stamp is kept up to here: see stamp
#define ANOTHER_CLOCK (10 * NANOSECONDS_PER_SECOND)    // from here on it is none of this clock, as for fq

#define SETS 512 // of cells of flows in each bucket; a power of two
#define WAYS 8   // cells in a set: as long as a cache line
#define CELLS (SETS * WAYS)
#define CLOCK_SHIFT 10             // flows' clock: units of 1024 ns, in 32 bits
#define CLOCK_AHEAD (1U << 27)     // what seems ahead by more (137 s) is past: the clock wraps every 73 minutes
#define MINIMUM_HALF_LIFE 16       // what a flow has had halves every 2^16 units of the clock (67 ms) ...
#define MAXIMUM_HALF_LIFE 22       // ... to 2^22 (4.3 s), so long that there is something to compare:
#define FEW_BYTES (16 * 1024)      // it grows when the fattest flow had less than this,
#define MANY_BYTES (64 * 1024)     // and shrinks when it had more than this
#define LONE_SHARE 512             // a flow has the link for itself when no other had more than 1/512 of what it had
#define SPARSE_SHARE 4             // a flow is sparse when it had at most 1/4 of what the fattest had
#define ALWAYS_SPARSE_BYTES 1024   // a flow of so little is sparse in any case, and may overtake a packet of its own
#define MOST_LONGEST 4             // so many CPUs may charge a longest packet at once: see where it is used
#define SMALL_BYTES 512            // of what may go ahead of packets that have their stamps, half is kept for such ones;
#define FULL_BYTES 1514            // larger ones go one after the other
#define STUBBORN_SIGNALS 16        // so many signals, and the queue is still long: who gets the next has a strike;
#define STUBBORN_STRIKES 8         // with so many it heeds none
#define MOST_STRIKES 15
#define EARLY_CHANCE 1024          // of 2^16: a packet is signalled early while the queue is long,
#define EARLY_CHANCE_LONG 8192     // and while it is twice as long
#define MOST_WAIT (1 * NANOSECONDS_PER_SECOND) // however many flows there are, unless 8 full packets take longer
#define MOST_PACKETS_SHIFT 15 // so many wait at most, of sparse flows twice as many: see too_many
#define MEAN_SHIFT 6          // their mean length is that of the last 2^6, about
// Of one packet, segments and all their headers: GRO_MAX_SIZE, 8 * 65535, is just below 2^19. What says that it has more
// is made up (a packet socket's virtio header names its segments' size, down to a byte).
#define MOST_BYTES_SHIFT 20
// A received packet whose segments would be longer than it by more than this many times is made up too: an MSS of 48
// makes it 2.4. Behind the shaper it is cut into tens of thousands of packets, which the node's memory holds.
#define MOST_SEGMENTED 4
// Of packets that are charged to a socket which others use too, 2^16 bytes may wait for one Pod on the shared timeline,
// and a quarter more. On the express one it is half as much, or all when it comes at once, as answers to many questions.
#define SHARED_SOCKET_SHIFT 16
#define SHARED_SOCKET_OVERHEAD 900 // so much more than it is long a packet takes there, or half its length
#define SHARED_SOCKET_PACKETS 16   // what waits no longer than for so many like it (full ones at most) is not looked at
// Four full packets of each flow, times the time over which `had` sums up (a half-life / ln 2), in ns for a half-life of
// one unit. TCP keeps no fewer in flight without running into retransmission timeouts.
#define ENTITLED (4 * 1477ULL)

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
  u32 unit_shift; // flows are counted in units of 2^unit_shift bytes
  u32 sparse_had; // a sparse flow has had at most so many units
  u32 borrowed_shift; // 2^borrowed_shift ns of the rate may go ahead of packets that have their stamps
  char pod_uid[40];
};

// A flow's cell, in one word so that it is never torn between CPUs: what tells flows of a set apart (12 bits), how
// many signals it seems to have ignored (4 bits), what it has had lately, in units (16 bits), and when its last packet
// leaves, by the flows' clock (32 bits).
#define CELL(tag, strikes, had, leaves) ((u64)(tag) << 52 | (u64)(strikes) << 48 | (u64)(had) << 32 | (u32)(leaves))
#define TAG(cell) ((u32)((cell) >> 52))
#define STRIKES(cell) ((u32)((cell) >> 48) & 15)
#define HAD(cell) ((u32)((cell) >> 32) & 0xffff)
#define LEAVES(cell) ((u32)(cell))
#define MOST_HAD 0xffff

// Written by this program alone. The counters first: buckets.py reads only them.
struct state {
  u64 generation;
  u64 bytes;
  u64 packets;
  u64 drops;
  u64 marks;
  u64 next;         // the shared timeline: when the next packet may leave
  u64 express_next; // the express timeline of sparse flows, of the same rate
  u64 borrowed;     // until then the express timeline has used what it may go ahead of the shared one; see leaves_ahead
  u64 first_above;  // CoDel: when the queue will have been long for an interval; 0 while it is short
  u64 signal_next;  // CoDel: the next signal is due then
  u64 signals;      // CoDel: signals since the queue became long
  u64 owed;         // signals that are due and wait for a packet of the fattest flow
  u64 owed_since;
  u64 adapt_next;   // the half-life is looked at again then
  u64 fattest_leaves;
  u32 fattest;      // cell of the flow that has had most, of those that heed signals
  u32 fattest_had;
  u32 half_life;    // log2, in units of the flows' clock
  u32 flood_had;    // likewise of those that heed none, of the one that came last
  u64 flood_leaves;
  u64 rate;         // what the limit was at the last packet, in bits per second
  u64 mean;         // length of packets while the queue is twice the target, in bytes, times 2^MEAN_SHIFT
  u64 in_shared_sockets[2]; // of each timeline: until then they hold what may wait on it of theirs; see in_shared_socket
  // Another layout has another size, as an upgrade copies what has the same (migration.py).
  u64 cells[CELLS];
};

BPF_ARRAY(limits, struct limit, ENTRIES);
BPF_ARRAY(state, struct state, ENTRIES);

// Time of `bytes` on the wire, in ns. The product stays below 2^60: bytes below 2^20, multiplier below 2^40. A fraction
// of a nanosecond is rounded up as often as it is large (`noise` is a hash of the time), so no rate drifts.
static __always_inline u64 wire_time_ns(const struct limit *limit, u64 bytes, u64 noise) {
  return (bytes * limit->multiplier + (noise >> (64 - limit->shift))) >> limit->shift;
}

// What is left of `had` after a time: halves every half-life, by straight lines between.
static __always_inline u32 decayed(u32 had, u64 age, u32 half_life) {
  u64 halvings = age >> half_life;
  if (halvings > 15)
    return 0;
  had >>= halvings;
  return had - (u32)(((u64)had * (age & ((1U << half_life) - 1))) >> (half_life + 1));
}

static __always_inline int is_ahead(u32 clock, u32 leaves) { return leaves - clock - 1 < CLOCK_AHEAD; }

static __always_inline u32 age_of(u32 clock, u32 leaves) { return is_ahead(clock, leaves) ? 0 : clock - leaves; }

// The cell of a flow. A flow that has none takes the one of its set that has had least, and with it what that has had
// (Space-Saving, Metwally et al. 2005): when there are more flows than cells, no bulk flow passes for a sparse one.
static __always_inline u32 cell_of(struct state *state, u32 hash, u32 clock, u32 half_life, u32 leaves) {
  u32 first = (hash & (SETS - 1)) * WAYS;
  u32 tag = hash >> 20;
  u32 least = MOST_HAD + 1, found = first;
#pragma unroll
  for (u32 way = 0; way < WAYS; way++)
    if (TAG(state->cells[first + way]) == tag)
      return first + way;
#pragma unroll
  for (u32 way = 0; way < WAYS; way++) {
    u64 cell = state->cells[first + way];
    u32 halvings = age_of(clock, LEAVES(cell)) >> half_life;
    u32 had = halvings > 15 ? 0 : HAD(cell) >> halvings;
    if (had < least) {
      least = had;
      found = first + way;
    }
  }
  state->cells[found & (CELLS - 1)] = CELL(tag, 0, least, leaves);
  return found;
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
// lost. Only a timeline that lags, of a bucket that was idle, is set: no burst is saved up. Whether it lags is looked at
// again here, as other CPUs may have filled a queue since the program began; in the two instructions between, there is
// none yet that a lost charge could make longer than the limit allows.
static __always_inline void charge(u64 *timeline, u64 now, u64 duration) {
  if (*(volatile u64 *)timeline > now)
    __sync_fetch_and_add(timeline, duration);
  else
    *timeline = now + duration;
}

// The packet leaves at `start`, or at the time its sender paced it for when that is later (TCP's SO_MAX_PACING_RATE, BBR;
// SO_TXTIME; of UDP sockets, fq alone knows the first), but by a second at most: what anybody may stamp for one and the
// same moment is sent at once then, and until then it fills the node's memory. On ingress there is no stamp (see
// SHAPER_NAME), and the helper (Linux 5.18) tells the kernel that what is written is no receive time. Before that, the
// Pod takes it for one.
static __always_inline void stamp(struct __sk_buff *skb, int is_ingress, u64 start, u64 now) {
  u64 own = skb->tstamp;
  if (own > now + OWN_STAMP_HORIZON) {
    u64 latest = now + OWN_STAMP_HORIZON;
    skb->tstamp = own > now + ANOTHER_CLOCK || start > latest ? start : latest;
    return;
  }
  if (start <= now || own > start)
    return;
#ifndef NO_SET_TSTAMP
  if (is_ingress) {
    bpf_skb_set_tstamp(skb, start, BPF_SKB_TSTAMP_DELIVERY_MONO);
    return;
  }
#endif
  skb->tstamp = start;
}

// Whether the queue is no longer than `times` what it takes to keep the link busy: CoDel's target; some packets such as
// this (Linux's codel says one: backlog <= maxpacket); or four full packets of each bulk flow. There are as many of those
// as what the rate gives in some time is a multiple of what the fattest had in it, so the rate cancels out.
// On ingress a packet that GRO has merged has up to 45 segments and takes longer than the target: a sender with two of
// them in flight, one leaving and one on its way, has no more to give without leaving the link idle. On egress the
// senders' sockets hold back themselves (TCP small queues: two or three packets each), so a queue never gets long, and
// without a signal at a quarter of the target flows would keep whatever unequal shares they began with.
static __always_inline int is_short(const struct limit *limit, u64 wait, u64 duration, u64 full, u64 fattest_had,
                                    u32 half_life, u64 times, int is_ingress) {
  u64 target = is_ingress ? limit->target_ns : limit->target_ns / 4;
  u64 packets = is_ingress ? 2 : 4;
  u64 entitled = times * full * ENTITLED << half_life;
  return wait < times * target || wait <= packets * times * duration ||
         (wait >> CLOCK_SHIFT) * fattest_had <= entitled >> (CLOCK_SHIFT + limit->unit_shift);
}

// CoDel, decided at enqueue: on a timeline the time that a packet will wait is known when it comes. Returns whether a
// signal is to be given to this packet.
static __always_inline int signal_due(const struct limit *limit, struct state *state, int queue_is_short, u64 now,
                                      int is_fattest) {
  if (queue_is_short) {
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
  // Signed, as another CPU may have noted it later than this one's clock.
  if (!is_fattest && (s64)(now - state->owed_since) <= (s64)(limit->interval_ns / 2))
    return 0;
  state->owed -= 1;
  state->owed_since = now;
  return 1;
}

// 16 times in a half-life: with many flows at a low rate each has but few packets in it, so few that nobody could tell
// the flows apart by what they had.
static __always_inline void adapt(const struct limit *limit, struct state *state, u64 now, int queue_is_short,
                                  u32 fattest_had) {
  state->adapt_next = now + (1ULL << (state->half_life + CLOCK_SHIFT - 4));
  if (!queue_is_short && ((u64)fattest_had << limit->unit_shift) < FEW_BYTES && state->half_life < MAXIMUM_HALF_LIFE)
    state->half_life += 1;
}

// What a flow that heeds no signal has had, against the most that another has: above that it is dropped by chance, the
// surer the more it is above; all of it from 9/8 on (approximate fair dropping, Pan et al. 2003).
static __always_inline int over_allowance(u32 had, u32 allowance, u32 chance) {
  return had > allowance && (u64)(had - allowance) * 8 << 16 > (u64)chance * allowance;
}

// The queue is bounded by time, and where packets are small by their number: each takes from 768 bytes to some KiB of the
// node's memory, which is charged to nobody, and a second of 1 Gbit/s are two million of 60 bytes. How many wait is told
// by how long they do and by their mean length.
static __always_inline int too_many(const struct limit *limit, struct state *state, u64 wait, u64 bytes, int is_sparse,
                                    u64 noise) {
  u64 sum = *(volatile u64 *)&state->mean;
  sum = sum ? sum + bytes - (sum >> MEAN_SHIFT) : bytes << MEAN_SHIFT;
  state->mean = sum;
  return wait >> (MOST_PACKETS_SHIFT + is_sparse) > wire_time_ns(limit, sum >> MEAN_SHIFT, noise);
}

// Packets on the express timeline leave in addition to those of the shared one that have their stamps already: it is
// paid back after `wait`. So what leaves in addition is bounded, however long the queue of the shared one: by a timeline
// on which a packet takes the longer the longer that queue is (a leaky bucket, ITU-T I.371's GCRA, of 2^borrowed_shift ns
// in `wait`). Returns when this packet may leave ahead of the queue, if it may. A small one for which it is too early waits
// for that moment: behind the queue, all that follow it would wait with it, as none may overtake another of its flow.
static __always_inline u64 leaves_ahead(const struct limit *limit, const struct state *state, u64 wait, u64 bytes,
                                        u64 express, u64 now, u64 noise) {
  u64 used = state->borrowed > now ? state->borrowed - now : 0;
  if (bytes > SMALL_BYTES)
    return used <= wait / 2 && express - now <= wire_time_ns(limit, FULL_BYTES, noise) ? express : NEVER;
  u64 allowed = used > wait ? now + used - wait : now;
  return allowed > express ? allowed : express;
}

static __always_inline void borrow(const struct limit *limit, struct state *state, u64 wait, u64 duration, u64 now) {
  charge(&state->borrowed, now, (duration * (wait >> (limit->borrowed_shift - 4))) >> 4);
}

// Whether others use the socket that a packet is charged to while it waits here: with its buffer full it sends to nobody.
// A socket that is connected serves this Pod alone. On egress a Pod's own sockets are its own matter, but the kernel
// sends the resets and ICMP of all network namespaces by raw sockets, one for each CPU. On ingress it is a socket of
// another Pod of this node, such as a server's, with all its clients (what came by a wire has none). Those of no Internet
// protocol are left out: all of a network may be behind a packet socket (gVisor) or a tap (a virtual machine), TCP too.
static __always_inline int is_of_a_shared_socket(struct __sk_buff *skb, int is_ingress) {
  struct bpf_sock *any = skb->sk;
  struct bpf_sock *full = any ? bpf_sk_fullsock(any) : (struct bpf_sock *)0;
  if (!full || full->state != TCP_CLOSE || (full->family != AF_INET && full->family != AF_INET6))
    return 0;
  return is_ingress ? full->type != SOCK_STREAM : full->type == SOCK_RAW;
}

// What waits of packets of shared sockets is bounded, for all flows of a timeline together. By Little's law that is what
// comes of them in `wait`: a leaky bucket as for `borrowed`, of 2^SHARED_SOCKET_SHIFT bytes in `wait`. The length of the
// queue alone would not do, as a lone packet is not dropped for what others have waiting. Returns how much of `wait` this
// packet takes, 0 if it does not count. Each timeline has its own, as a packet is held to what waits as long as it does.
static __always_inline u64 in_shared_socket(struct __sk_buff *skb, int is_ingress, int is_express,
                                            const struct limit *limit, u64 wait, u64 bytes, u64 duration, u64 noise) {
  u64 each = bytes > FULL_BYTES ? wire_time_ns(limit, FULL_BYTES, noise) : duration;
  if (wait <= SHARED_SOCKET_PACKETS * each || !is_of_a_shared_socket(skb, is_ingress))
    return 0;
  u64 more = bytes / 2 > SHARED_SOCKET_OVERHEAD ? bytes / 2 : SHARED_SOCKET_OVERHEAD;
  return wait * (bytes + more) >> (SHARED_SOCKET_SHIFT - is_express);
}

// A packet that is to be cut into segments counts as so many, whatever becomes of it.
static __always_inline u64 segments(struct __sk_buff *skb) {
  u32 claimed = skb->gso_segs;
  return claimed ? claimed : 1;
}

// The same value, of which the verifier no longer knows anything. It goes through all that follows once for each set of
// values that it knows such flags to have, and gives up after a million instructions: of Linux 6.12, it tried 774,000
// before there was this, and 176,000 since.
static __always_inline u64 unknown(u64 value, u64 noise) {
  value += noise;
  asm volatile("" : "+r"(value));
  return value - noise;
}

// What a full packet is where this one comes from: more than FULL_BYTES on a network of jumbo frames.
static __always_inline u64 full_bytes(struct __sk_buff *skb, u64 bytes, u64 noise) {
  u64 each = skb->gso_size ? skb->gso_size : bytes;
  return unknown(each > FULL_BYTES ? each : FULL_BYTES, noise);
}

// A flow whose packets come merged finds no queue long that is one of its own packets, so it gets no signals. When
// another's packet is lost to the length of that queue, it has a strike all the same: one in an interval. Not for what
// heeds none itself, which would have them struck whom it floods.
static __always_inline void strike(const struct limit *limit, struct state *state, u32 index, u64 now) {
  u64 cell = state->cells[index & (CELLS - 1)];
  if (now < state->signal_next || (STRIKES(cell)) >= MOST_STRIKES)
    return;
  state->cells[index & (CELLS - 1)] = cell + CELL(0, 1, 0, 0);
  state->signal_next = now + limit->interval_ns;
}

static __always_inline int drop(struct state *state, struct __sk_buff *skb) {
  __sync_fetch_and_add(&state->drops, segments(skb));
  return TC_ACT_SHOT;
}

// It leaves at `leaves`, unless it is of a kind that never waits, not even for what its sender stamped.
static __always_inline int pass(struct state *state, struct __sk_buff *skb, u64 bytes, u64 duration, u64 *sockets,
                                u64 taken, int is_ingress, int waits, u64 leaves, u64 now) {
  charge(&state->next, now, duration);
  if (taken)
    charge(sockets, now, taken);
  if (waits)
    stamp(skb, is_ingress, leaves, now);
  else
    skb->tstamp = 0;
  __sync_fetch_and_add(&state->bytes, bytes);
  __sync_fetch_and_add(&state->packets, segments(skb));
  return TC_ACT_UNSPEC;
}

static __always_inline void begin_generation(struct state *state, const struct limit *limit) {
  state->bytes = state->packets = state->drops = state->marks = 0;
  state->next = state->express_next = state->borrowed = state->in_shared_sockets[0] = state->in_shared_sockets[1] = 0;
  state->first_above = state->signal_next = state->signals = state->owed = state->owed_since = 0;
  state->adapt_next = state->fattest_leaves = state->mean = 0;
  state->fattest = state->fattest_had = state->flood_had = 0;
  state->half_life = MINIMUM_HALF_LIFE;
  state->generation = limit->generation; // the flows need no reset: what they had decays by itself
}

// What waits keeps its stamps. At a higher rate, what comes would be dropped for the length of that queue, for up to a
// second: so it counts for as long as its bytes take at the new rate. New packets go between the old ones then, and both
// together are what the new rate allows. After a very low rate, times that may be minutes ahead mean nothing.
static __always_inline void change_rate(const struct limit *limit, struct state *state, u64 now, u64 most_wait) {
  u64 times = state->rate ? limit->bits_per_second / state->rate : 0;
  state->rate = limit->bits_per_second;
  state->borrowed = state->in_shared_sockets[0] = state->in_shared_sockets[1] = 0;
  state->first_above = state->signal_next = 0;
  if (state->next <= now + limit->cap_ns)
    return;
  u64 wait = times > 1 ? (state->next - now) / times : state->next - now;
  if (times > 1 || wait > most_wait) {
    state->next = wait > most_wait ? now : now + wait;
    state->express_next = now;
  }
}

int SHAPER_NAME(struct __sk_buff *skb) {
  u32 bucket = skb->tc_classid;
  struct limit *limit = limits.lookup(&bucket);
  struct state *held = state.lookup(&bucket);
  if (!limit || !held || !limit->bits_per_second)
    return TC_ACT_UNSPEC;
  if (held->generation != limit->generation)
    begin_generation(held, limit);

  int is_ingress = bucket & 1;
  // A sender of this node may have stamped what comes to another Pod, and from Linux 5.18 on a stamp survives the way
  // there (skb_clear_tstamp): fq would hold it, and what shares its hash with it, for as long as any Pod likes.
  if (is_ingress && skb->tstamp)
    skb->tstamp = 0;
  u64 now = bpf_ktime_get_ns();
  u64 noise = now * 0x9E3779B97F4A7C15ULL;
  u64 bytes = skb->wire_len;
  if (bytes >> MOST_BYTES_SHIFT || (is_ingress && bytes > MOST_SEGMENTED * skb->len))
    return drop(held, skb);
  u64 duration = wire_time_ns(limit, bytes, noise);
  u64 most_wait = limit->cap_ns > MOST_WAIT ? limit->cap_ns : MOST_WAIT;
  if (held->rate != limit->bits_per_second)
    change_rate(limit, held, now, most_wait);
  // Further ahead than this rate could bring it, with the longest packets, of several CPUs at once, as the last of the
  // longest queue: the timeline is that of a much lower rate, whose figures were read while they were replaced.
  if (held->next > now + most_wait) {
    u64 longest = (limit->multiplier << MOST_BYTES_SHIFT) >> limit->shift;
    if (held->next > now + most_wait + 2 * limit->interval_ns + MOST_LONGEST * longest) {
      held->next = held->express_next = now;
      held->borrowed = held->in_shared_sockets[0] = held->in_shared_sockets[1] = 0;
    }
  }
  u64 start = held->next > now ? held->next : now;
  u64 wait = start - now;
  // ARP never waits, and on ingress nothing can that is not IP (the helper stamps IP alone). All the same it is a flow as
  // any other, which is held to its share by what of it is dropped: a packet socket may name its packets as it likes.
  u16 ethertype = bpf_ntohs(skb->protocol);
  int is_ip = ethertype == ETHERTYPE_IPV4 || ethertype == ETHERTYPE_IPV6;
  int waits = unknown(is_ip || (!is_ingress && ethertype != ETHERTYPE_ARP), noise);

  u64 express = held->express_next > now ? held->express_next : now;
  u32 express_clock = (u32)(express >> CLOCK_SHIFT);
  u32 half_life = held->half_life & 31;
  u32 clock = (u32)(start >> CLOCK_SHIFT);
  // A socket of this node has given its packets a hash; one that a card gave may be of the addresses alone.
  u32 hash = is_ingress ? 0 : skb->hash;
  if (!hash)
    hash = bpf_get_hash_recalc(skb);
  u32 tag = hash >> 20;
  u32 index = cell_of(held, hash, clock, half_life, express_clock) & (CELLS - 1);
  u64 cell = held->cells[index];
  u32 strikes = STRIKES(cell);
  u32 chance = (u32)(noise >> 32);
  // Rounded by chance, as often up as the rest is large: small packets count neither for more nor for less.
  u32 units = (u32)((bytes + (chance & ((1U << limit->unit_shift) - 1))) >> limit->unit_shift);
  chance >>= 16;
  u32 had = decayed(HAD(cell), age_of(clock, LEAVES(cell)), half_life) + units;
  if (had > MOST_HAD)
    had = MOST_HAD;
  had = unknown(had, noise);

  // Signals go to the fattest of the flows that heed them, and what it had is what the others are held to.
  int is_stubborn = strikes >= STUBBORN_STRIKES;
  u32 fattest_had = had;
  u32 always = ALWAYS_SPARSE_BYTES >> limit->unit_shift;
  u64 flood_age = (start >> CLOCK_SHIFT) - held->flood_leaves;
  u32 flood_had = held->flood_had;
  if (flood_had && (s64)flood_age > 0)
    flood_had = decayed(flood_had, flood_age, half_life);
  // One of so little is never it: it may have come alone when nothing else did, and would wait with all others now.
  int is_fattest = index == held->fattest && !is_stubborn && had > always && had > flood_had / SPARSE_SHARE;
  int is_sparse = 0, is_express = 0;
  u64 leaves = start;
  if (!is_fattest) {
    // What it had itself, before it was found to heed nothing, is no other's.
    if (index == held->fattest && is_stubborn)
      held->fattest_had = 0;
    u64 fattest_age = (start >> CLOCK_SHIFT) - held->fattest_leaves;
    fattest_had = (s64)fattest_age > 0 ? decayed(held->fattest_had, fattest_age, half_life) : held->fattest_had;
    // A flow that has had little goes ahead of the queue, unless it would overtake a packet of its own. What goes ahead
    // is limited to the rate by the express timeline, and charged to the shared one. Little is less than others had,
    // whether they heed signals or not: beside a flood alone, a call is the fattest of those that do.
    u32 share = (fattest_had > flood_had ? fattest_had : flood_had) / SPARSE_SHARE;
    u32 sparse_had = limit->sparse_had << (half_life - MINIMUM_HALF_LIFE);
    if (share < sparse_had)
      sparse_had = share;
    u64 ahead = leaves_ahead(limit, held, wait, bytes, express, now, noise);
    u32 ahead_clock = (u32)(ahead >> CLOCK_SHIFT);
    int overtakes = had > always && is_ahead(ahead_clock, LEAVES(cell));
    is_sparse = had <= sparse_had || had <= always;
    is_express = is_sparse && !overtakes && ahead < start;
    if (is_express) {
      leaves = ahead;
    } else if (had >= fattest_had && !is_stubborn) {
      is_fattest = 1;
      fattest_had = had;
    }
  }

  is_fattest = unknown(is_fattest, noise);
  is_sparse = unknown(is_sparse, noise);
  is_express = unknown(is_express, noise);

  // A timeline's queue may have been longer: what was charged then counts for no more than what may wait now.
  u64 *sockets = &held->in_shared_sockets[is_express & 1];
  u64 taken = in_shared_socket(skb, is_ingress, is_express, limit, leaves - now, bytes, duration, noise);
  if (taken) {
    u64 at_once = is_express ? leaves : now + (leaves - now) / 4;
    u64 most = at_once + (leaves - now);
    if (*sockets > most)
      *sockets = most;
    if (*sockets > at_once)
      return drop(held, skb);
  }
  if (is_express) {
    held->cells[index] = CELL(tag, strikes, had, (u32)(leaves >> CLOCK_SHIFT));
    borrow(limit, held, wait, duration, now);
    charge(&held->express_next, now, duration);
    return pass(held, skb, bytes, duration, sockets, taken, is_ingress, waits, leaves, now);
  }

  u64 full = full_bytes(skb, bytes, noise);
  int queue_is_short = is_short(limit, wait, duration, full, fattest_had, half_life, 1, is_ingress);
  int queue_is_long = !queue_is_short && !is_short(limit, wait, duration, full, fattest_had, half_life, 2, is_ingress);
  if (now >= held->adapt_next)
    adapt(limit, held, now, queue_is_short, fattest_had);
  // A sparse flow, which others' queue makes wait when too much went ahead of it lately, is not dropped for its length.
  if (wait > most_wait || (wait > limit->cap_ns && queue_is_long && !is_sparse)) {
    if (!is_fattest && !is_stubborn)
      strike(limit, held, held->fattest, now);
    return drop(held, skb);
  }
  if (is_stubborn) {
    // Not all that another has, as others need some room to grow into; but while little waits whatever they leave, so
    // the link is never idle for it. Little is less when there is one that could fill the rest of the queue, and on
    // egress already when one begins: what a socket may have in the queue is its rate there (TCP small queues). Beside
    // nobody, and when the queue was short a moment ago, it is what bursts of 40 ms leave waiting, as a video's frames:
    // with less the link would be idle in between.
    u32 allowance = fattest_had - (fattest_had * 3 >> 3);
    int is_alone = fattest_had < had / SPARSE_SHARE;
    int is_lone = fattest_had < had / LONE_SHARE;
    u64 long_since = held->first_above ? held->first_above - limit->interval_ns : now;
    u64 little = limit->target_ns / 8;
    if (is_lone && now < long_since + limit->interval_ns / 8)
      little = limit->cap_ns / 4;
    else if (is_alone)
      little = is_ingress || is_lone ? limit->target_ns : limit->target_ns / 4;
    u64 packets = is_alone ? 2 : 1;
    u64 most = wire_time_ns(limit, FULL_BYTES, noise); // a merged one of its own is no excuse
    u64 each = duration < most ? duration : most;
    if (wait > little && wait > packets * each && over_allowance(had, allowance, chance))
      return drop(held, skb);
    if (had < fattest_had / 2)
      strikes -= 1;
    held->flood_had = had;
    held->flood_leaves = start >> CLOCK_SHIFT;
  } else if (strikes && had < fattest_had - (fattest_had >> 3)) {
    strikes = 0;
  }
  if (wait > 2 * limit->target_ns && too_many(limit, held, wait, bytes, is_sparse, noise))
    return drop(held, skb);
  // Slow start doubles the queue within one round trip: CoDel, which waits for an interval, comes too late. Beside a flood
  // the queue may be its last packet, merged from many, of which others cannot make it shorter.
  u32 early = 0;
  if (queue_is_long && flood_had < fattest_had / SPARSE_SHARE)
    early =
      is_short(limit, wait, duration, full, fattest_had, half_life, 4, is_ingress) ? EARLY_CHANCE : EARLY_CHANCE_LONG;
  int is_due = signal_due(limit, held, queue_is_short, now, is_fattest);
  if (is_due && held->signals > STUBBORN_SIGNALS && strikes < MOST_STRIKES)
    strikes += 1;
  if (is_due || (chance < early && had * 2 >= fattest_had)) {
    if (!bpf_skb_ecn_set_ce(skb)) {
      if (is_due) // the strike counts; what the flow had does not change by a packet that never leaves
        held->cells[index] = CELL(tag, strikes, HAD(cell), LEAVES(cell));
      return drop(held, skb);
    }
    __sync_fetch_and_add(&held->marks, segments(skb));
  }

  held->cells[index] = CELL(tag, strikes, had, clock);
  if (is_fattest) {
    held->fattest = index;
    held->fattest_had = had;
    held->fattest_leaves = start >> CLOCK_SHIFT;
    if (((u64)had << limit->unit_shift) > MANY_BYTES && half_life > MINIMUM_HALF_LIFE)
      held->half_life = half_life - 1;
  }
  return pass(held, skb, bytes, duration, sockets, taken, is_ingress, waits, start, now);
}
