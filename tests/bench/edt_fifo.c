// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// The yardstick: earliest departure time as a plain FIFO, which is what Cilium's bandwidth manager does (its
// bpf/lib/edt.h): one timeline for each limit, nothing that knows of flows, and packets beyond 2 s of queue are dropped.
// A filter's class id names the entry. Compiled by bcc, as the shaper is; ENTRIES comes from edt.py.

#define TC_ACT_OK 0
#define TC_ACT_SHOT 2
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86DD
#define NANOSECONDS_PER_SECOND 1000000000ULL
#define DROP_HORIZON (2 * NANOSECONDS_PER_SECOND)

struct timeline {
  u64 bytes_per_second; // 0: no limit
  u64 next;             // when the next packet may leave
};

BPF_ARRAY(timelines, struct timeline, ENTRIES);

int edt_fifo(struct __sk_buff *skb) {
  u32 entry = skb->tc_classid;
  struct timeline *timeline = timelines.lookup(&entry);
  if (!timeline || !timeline->bytes_per_second)
    return TC_ACT_OK;
  u16 ethertype = bpf_ntohs(skb->protocol);
  if (ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6)
    return TC_ACT_OK;
  u64 now = bpf_ktime_get_ns();
  u64 own = skb->tstamp;
  if (own < now)
    own = now;
  u64 next = timeline->next + skb->wire_len * NANOSECONDS_PER_SECOND / timeline->bytes_per_second;
  if (next <= own) {
    timeline->next = own;
    return TC_ACT_OK;
  }
  if (next - now >= DROP_HORIZON)
    return TC_ACT_SHOT;
  timeline->next = next;
  skb->tstamp = next;
  return TC_ACT_OK;
}
