/**
 * What Redis does with the members of topics, in one step each: Lua that runs there.
 *
 * Role: below redis-members.ts, which knows what goes in and comes out. Keys, all in the hash slot of a partition:
 *
 *   users    of a topic: hash, a user → u8 nodes, for each: node (8 bytes), version u48, connections u32; then info
 *   nodes    of a topic: hash, a node (8 bytes) → how many connections its users have there
 *   gone     of a topic, for a minute: hash, node and user → version of what took it away, so that what comes late does not bring it back
 *   held     of a node: set of the topics where it has users
 *   leases   sorted set, a node → until when it counts, in milliseconds
 *   sweep    string: who cleans up after nodes that are gone
 *
 * and log and meta of the topic's presence log (log-scripts.ts). A user is there while there is an entry of some node; the first one appends a
 * join, with the last one goes a leave, in the same step. Whose node has no lease does not count from that moment on; its entries, and so the leaves of its
 * users, go when somebody sweeps. Each key has an expiry, which who holds a lease renews long before it is due.
 */
import { logFunctions } from './log-scripts.ts';

/** Beyond this nobody has looked after a key. */
const expiryMs = 3_600_000;
const goneMs = 180_000;

const memberFunctions = `${logFunctions}
local function check(key, kind)
  local is = kind_of(key)
  return is == kind or is == 'none'
end
local function parse(value)
  local count = string.byte(value, 1)
  if not count or #value < 1 + count * 18 then return nil end
  local list = {}
  for i = 0, count - 1 do
    local node, version, connections = struct.unpack('>c8I6I4', value, 2 + i * 18)
    list[#list + 1] = { node = node, version = version, connections = connections }
  end
  return list, string.sub(value, 2 + count * 18)
end
local function format(list, info)
  local parts = { string.char(#list) }
  for _, one in ipairs(list) do parts[#parts + 1] = struct.pack('>c8I6I4', one.node, one.version, one.connections) end
  parts[#parts + 1] = info
  return table.concat(parts)
end
local function find(list, node)
  for i, one in ipairs(list) do
    if one.node == node then return i, one end
  end
end
local function lease_of(leases, node, now)
  local until_ms = redis.call('ZSCORE', leases, node)
  return until_ms and tonumber(until_ms) > now
end
local function expire(...)
  for _, key in ipairs({ ... }) do redis.call('PEXPIRE', key, ${expiryMs}) end
end
local function tally(nodes, held, node, topic, by)
  if by == 0 then return end
  if redis.call('HINCRBY', nodes, node, by) > 0 then
    redis.call('SADD', held, topic)
  else
    redis.call('HDEL', nodes, node)
    redis.call('SREM', held, topic)
  end
end
`;

/**
 * What has changed on one node. The node has a lease from then on.
 *
 *   KEYS  users, nodes, held of the node, leases, log, meta, gone of this minute, gone of the last one
 *   ARGV  channel, command to publish with, bytes of the prefix, node (8 bytes), topic, candidate, size, seconds, milliseconds of the lease, then for each
 *         user: name, version, connections, info, envelope of the join, or of the leave without connections
 *   ret   1: the node had its lease; 0: it had none, or had lost it
 */
export const writeScript = `${memberFunctions}
local users, nodes, held, leases, log, meta, gone, gone_before = unpack(KEYS)
if not check(users, 'hash') then return damaged(users) end
if not check(nodes, 'hash') then return damaged(nodes) end
if not check(held, 'set') then return damaged(held) end
if not check(leases, 'zset') then return damaged(leases) end
if not check(gone, 'hash') then return damaged(gone) end
if not check(gone_before, 'hash') then return damaged(gone_before) end
local node, topic = ARGV[4], ARGV[5]
-- By user: one may have changed several times.
local values = {}
for i = 10, #ARGV, 5 do
  local user = ARGV[i]
  if not values[user] then
    local value = redis.call('HGET', users, user)
    local list, info = {}, ''
    if value then list, info = parse(value) end
    if not list then return damaged(users) end
    values[user] = { list = list, info = info }
  end
end
local at, problem = open_log(log, meta, ARGV[6], '', 0, 0)
if problem then return problem end
local now = now_ms()
local had = lease_of(leases, node, now)
local entries, total = {}, 0
for i = 10, #ARGV, 5 do
  local user, version, connections, info = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), ARGV[i + 3]
  local known = values[user]
  local list = known.list
  local index, mine = find(list, node)
  local mark = node .. user
  if mine and mine.version >= version then
    -- It is known, or older.
  elseif connections > 0 then
    local late = not mine and (redis.call('HGET', gone, mark) or redis.call('HGET', gone_before, mark))
    -- A byte counts the nodes of a user.
    if (not late or tonumber(late) < version) and (mine or #list < 255) then
      if #list == 0 then
        entries[#entries + 1] = ARGV[i + 4]
        known.info = info
      end
      total = total + connections - (mine and mine.connections or 0)
      list[index or #list + 1] = { node = node, version = version, connections = connections }
      redis.call('HSET', users, user, format(list, known.info))
    end
  else
    redis.call('HSET', gone, mark, whole(version))
    if mine then
      total = total - mine.connections
      table.remove(list, index)
      if #list == 0 then
        redis.call('HDEL', users, user)
        entries[#entries + 1] = ARGV[i + 4]
      else
        redis.call('HSET', users, user, format(list, known.info))
      end
    end
  end
end
tally(nodes, held, node, topic, total)
redis.call('ZADD', leases, 'GT', whole(now + tonumber(ARGV[9])), node)
expire(users, nodes, held, leases)
redis.call('PEXPIRE', gone, ${goneMs})
if #entries > 0 then
  problem = append(log, meta, at, math.max(now, at.time), tonumber(ARGV[7]), tonumber(ARGV[8]), entries, ARGV[2], ARGV[1], tonumber(ARGV[3]))
  if problem then return problem end
elseif at.is_new then
  keep(log, meta, tonumber(ARGV[8]))
end
return had and 1 or 0
`;

/**
 *   KEYS  users, leases, log, meta
 *   ARGV  candidate, size, seconds
 *   ret   epoch and offset of the presence log, how many nodes have a lease, these nodes, then by turns users and their values
 */
export const listScript = `${memberFunctions}
local users, leases, log, meta = unpack(KEYS)
if not check(users, 'hash') then return damaged(users) end
if not check(leases, 'zset') then return damaged(leases) end
local at, problem = open_log(log, meta, ARGV[1], '', 0, 0)
if problem then return problem end
if at.is_new then keep(log, meta, tonumber(ARGV[3])) end
local alive = redis.call('ZRANGEBYSCORE', leases, '(' .. whole(now_ms()), '+inf')
local answer = { at.epoch, whole(at.last), whole(#alive) }
for _, node in ipairs(alive) do answer[#answer + 1] = node end
for _, word in ipairs(redis.call('HGETALL', users)) do answer[#answer + 1] = word end
return answer
`;

/**
 *   KEYS  users, nodes, leases
 *   ret   users, connections
 */
export const countScript = `${memberFunctions}
local users, nodes, leases = unpack(KEYS)
if not check(users, 'hash') then return damaged(users) end
if not check(nodes, 'hash') then return damaged(nodes) end
if not check(leases, 'zset') then return damaged(leases) end
local now = now_ms()
local alive, all_alive, connections = {}, true, 0
local list = redis.call('HGETALL', nodes)
for i = 1, #list, 2 do
  if lease_of(leases, list[i], now) then
    alive[list[i]] = true
    connections = connections + tonumber(list[i + 1])
  else
    all_alive = false
  end
end
if all_alive then return { redis.call('HLEN', users), connections } end
local count = 0
for _, value in ipairs(redis.call('HVALS', users)) do
  for _, one in ipairs(parse(value) or {}) do
    if alive[one.node] then
      count = count + 1
      break
    end
  end
end
return { count, connections }
`;

/**
 * Goes on with a lease, and tells who has lost theirs: one of those who ask does something about it.
 *
 *   KEYS  leases, sweep, held of the node
 *   ARGV  node, milliseconds of the lease, milliseconds in which nobody else is told, 1: and go on with the expiry of the keys
 *   ret   1: it had its lease, topics that it holds, then nodes that have lost theirs
 */
export const renewScript = `${memberFunctions}
local leases, sweep, held = unpack(KEYS)
local now = now_ms()
local had = lease_of(leases, ARGV[1], now)
redis.call('ZADD', leases, 'GT', whole(now + tonumber(ARGV[2])), ARGV[1])
if ARGV[4] == '1' or not had then expire(leases, held) end
local answer = { had and 1 or 0, redis.call('SCARD', held) }
local dead = redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now), 'LIMIT', 0, 16)
if #dead > 0 and redis.call('SET', sweep, ARGV[1], 'NX', 'PX', ARGV[3]) then
  for _, node in ipairs(dead) do answer[#answer + 1] = node end
end
return answer
`;

/**
 * Topics of a node: of one that is gone, to be swept, or of one's own, to be kept.
 *
 *   KEYS  leases, held of the node
 *   ARGV  node, most topics, 1: only if it has no lease; one without topics is forgotten then
 *   ret   topics
 */
export const heldScript = `${memberFunctions}
local leases, held = unpack(KEYS)
if ARGV[3] ~= '1' then return redis.call('SMEMBERS', held) end
if lease_of(leases, ARGV[1], now_ms()) then return {} end
local topics = redis.call('SRANDMEMBER', held, ARGV[2])
if #topics == 0 then redis.call('ZREM', leases, ARGV[1]) end
return topics
`;

/** KEYS are kept. */
export const keepScript = `${memberFunctions}
expire(unpack(KEYS))
return #KEYS
`;

/**
 * Users of a node without a lease go from a topic.
 *
 *   KEYS  users, nodes, held of that node, leases, log, meta
 *   ARGV  channel, command to publish with, bytes of the prefix, the node, topic, candidate, size, seconds, 1: these are all, then by turns users and
 *         envelopes of their leaves
 *   ret   1; 0: the node has a lease
 */
export const sweepScript = `${memberFunctions}
local users, nodes, held, leases, log, meta = unpack(KEYS)
local node, topic = ARGV[4], ARGV[5]
local now = now_ms()
if lease_of(leases, node, now) then return 0 end
local at, problem = open_log(log, meta, ARGV[6], '', 0, 0)
if problem then return problem end
local entries, total = {}, 0
for i = 10, #ARGV, 2 do
  local value = redis.call('HGET', users, ARGV[i])
  local list, info
  if value then list, info = parse(value) end
  local index, one = find(list or {}, node)
  if one then
    total = total + one.connections
    table.remove(list, index)
    if #list == 0 then
      redis.call('HDEL', users, ARGV[i])
      entries[#entries + 1] = ARGV[i + 1]
    else
      redis.call('HSET', users, ARGV[i], format(list, info))
    end
  elseif value and not list then
    redis.call('HDEL', users, ARGV[i])
  end
end
if ARGV[9] == '1' then
  redis.call('HDEL', nodes, node)
  redis.call('SREM', held, topic)
else
  tally(nodes, held, node, topic, -total)
end
if #entries > 0 then
  problem = append(log, meta, at, math.max(now, at.time), tonumber(ARGV[7]), tonumber(ARGV[8]), entries, ARGV[2], ARGV[1], tonumber(ARGV[3]))
  if problem then return problem end
elseif at.is_new then
  keep(log, meta, tonumber(ARGV[8]))
end
return 1
`;
