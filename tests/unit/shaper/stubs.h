// What shaper.c needs of bcc and the kernel, for a program of this machine: see native.py.
#include <stdint.h>
#include <stddef.h>

typedef uint64_t u64;
typedef int64_t s64;
typedef uint32_t u32;
typedef uint16_t u16;
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

struct bpf_sock {
  u32 family, type, state;
};

struct __sk_buff {
  u64 tstamp;
  struct bpf_sock *sk;
  u32 tc_classid, len, wire_len, protocol, hash, gso_segs, gso_size, may_mark, marked;
};

static u64 clock_ns;
void set_clock(u64 now) { clock_ns = now; }

// What other CPUs do between the program's first look at its timelines and its last word: called once a packet.
static void (*meanwhile)(void);
void set_meanwhile(void (*call)(void)) { meanwhile = call; }

static struct bpf_sock *bpf_sk_fullsock(struct bpf_sock *sk) { return sk; }
static u64 bpf_ktime_get_ns(void) { return clock_ns; }
static u16 bpf_ntohs(u32 value) { return (u16)value; }

static u32 bpf_get_hash_recalc(struct __sk_buff *skb) {
  if (meanwhile) {
    void (*call)(void) = meanwhile;
    meanwhile = NULL;
    call();
  }
  return skb->hash;
}

static int bpf_skb_ecn_set_ce(struct __sk_buff *skb) { return skb->marked = skb->may_mark; }

#define BPF_SKB_TSTAMP_DELIVERY_MONO 1
static void bpf_skb_set_tstamp(struct __sk_buff *skb, u64 tstamp, int kind) {
  (void)kind;
  skb->tstamp = tstamp;
}

#define BPF_ARRAY(name, type, entries)                                                                                  \
  type name##_entries[entries];                                                                                         \
  static type *name##_lookup(u32 *key) { return &name##_entries[*key]; }                                                \
  static struct { type *(*lookup)(u32 *key); } name = {name##_lookup};                                                  \
  const size_t name##_bytes = sizeof(type)

int SHAPER_NAME(struct __sk_buff *skb);

// Waits until as many CPUs are here, each with a thread of its own: so all of it happens while all of them run, however
// busy the machine is.
static void meet(u32 cpus) {
  static u32 arrived;
  u32 own = __sync_fetch_and_add(&arrived, 1);
  u32 all = own - own % cpus + cpus;
  while ((int32_t)(*(volatile u32 *)&arrived - all) < 0)
    ;
}

// What one of several CPUs does that send at once: the same packet again and again. Returns how many pass.
u64 send_many(struct __sk_buff *skb, u32 cpus, u64 number, u64 *marked) {
  u64 passed = 0;
  while (number--) {
    skb->tstamp = skb->marked = 0;
    meet(cpus);
    passed += SHAPER_NAME(skb) == -1;
    *marked += skb->marked;
  }
  return passed;
}
