/**
 * What Redis does with logs of topics, in one step each: Lua that runs there.
 *
 * Role: below redis-logs.ts, which knows what goes in and comes out. Keys of a log, all in the hash slot of its topic's partition:
 *
 *   log     stream; an entry's ID is <offset>-<milliseconds since 1970>, its one field has the envelope (nodes/envelope.ts)
 *   meta    hash: e epoch, 8 bytes | o offset of the last entry | t its time | x when the oldest entry is too old, or before |
 *                 p<publisher> its latest batch: sequence, epoch, offset before its first entry
 *   once    string for each idempotency key: epoch, offset, whose batch it came with
 *
 * Each has an expiry, set in the step that makes it. Numbers are packed in big endian. A step that fails has changed nothing: what it finds is
 * looked at before it writes.
 * Epoch: made with the meta hash, and made anew when who asks has seen an entry that is not there: then Redis has lost the end of the log, in a
 * failover to a replica that did not have it yet. What is there keeps its offsets.
 */

/** Begins each error of these scripts that is about what lies in a key. */
export const damagedWord = 'RWDAMAGED';

/** `candidate`: the epoch of a log that begins; empty: none does. `known_*`: an entry that has been seen; `known_time` 0: not to be compared. */
export const logFunctions = `
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local function whole(n) return string.format('%.0f', n) end
local function damaged(key) return redis.error_reply('${damagedWord} ' .. key) end
local function id_of(id)
  local offset, time = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(offset), tonumber(time)
end
local function kind_of(key) return redis.call('TYPE', key).ok end
local function open_log(log, meta, candidate, known_epoch, known_offset, known_time)
  local is, kind = kind_of(log), kind_of(meta)
  if is ~= 'stream' and is ~= 'none' then return nil, damaged(log) end
  if kind ~= 'hash' and kind ~= 'none' then return nil, damaged(meta) end
  if kind == 'none' then
    if candidate == '' then return { epoch = '', last = 0, old_at = 0, time = 0 } end
    if is ~= 'none' then redis.call('DEL', log) end
    redis.call('HSET', meta, 'e', candidate, 'o', '0', 't', '0', 'x', '0')
    return { epoch = candidate, last = 0, old_at = 0, time = 0, is_new = true }
  end
  local m = redis.call('HMGET', meta, 'e', 'o', 'x', 't')
  local last, old_at, time = tonumber(m[2] or ''), tonumber(m[3] or ''), tonumber(m[4] or '')
  if not m[1] or #m[1] ~= 8 or not last or not old_at or not time then return nil, damaged(meta) end
  local at = { epoch = m[1], last = last, old_at = old_at, time = time }
  if known_epoch ~= at.epoch then return at end
  local lost = known_offset > last
  if not lost and known_time > 0 and is == 'stream' then
    local seen = redis.call('XRANGE', log, whole(known_offset), whole(known_offset), 'COUNT', 1)[1]
    if seen then
      local _, time = id_of(seen[1])
      lost = time ~= known_time
    end
  end
  if lost and candidate ~= '' then
    redis.call('HSET', meta, 'e', candidate)
    at.epoch = candidate
  end
  return at
end
local function keep(log, meta, seconds)
  redis.call('PEXPIRE', log, whole(seconds * 1000))
  redis.call('PEXPIRE', meta, whole(math.max(3600, seconds * 2) * 1000))
end
-- Offset and time of the first entry from 'lowest' on that is younger than 'oldest'; nil: none is. Times grow with offsets.
local function first_young(log, lowest, last, oldest)
  local entry = redis.call('XRANGE', log, whole(lowest), '+', 'COUNT', 1)[1]
  if not entry then return end
  local offset, time = id_of(entry[1])
  if time > oldest then return offset, time end
  local low, high, found, found_time = offset + 1, last
  while low <= high do
    local middle = math.floor((low + high) / 2)
    entry = redis.call('XRANGE', log, whole(middle), '+', 'COUNT', 1)[1]
    if entry then offset, time = id_of(entry[1]) end
    if entry and time <= oldest then
      low = offset + 1
    else
      if entry then found, found_time = offset, time end
      high = middle - 1
    end
  end
  return found, found_time
end
-- Entries that are too old go. 'old_at' is when the next look is due.
local function age(log, at, now, seconds)
  if now < at.old_at then return end
  local offset, time = first_young(log, 1, at.last, now - seconds * 1000)
  if offset then redis.call('XTRIM', log, 'MINID', whole(offset)) end
  at.old_at = (time or now) + seconds * 1000
end
-- 'entries': envelopes. Appends and tells who is subscribed.
local function append(log, meta, at, now, size, seconds, entries, publish, channel, prefix_bytes)
  local first = at.last + 1
  local told = { struct.pack('>BBc8I6I6I2', 3, prefix_bytes, at.epoch, first, now, #entries) }
  for i, entry in ipairs(entries) do
    local added = redis.pcall('XADD', log, whole(first + i - 1) .. '-' .. whole(now), 'm', entry)
    -- Only the first can be refused: somebody else has written there.
    if type(added) == 'table' and added.err then return damaged(log) end
    told[#told + 1] = struct.pack('>I4', #entry)
    told[#told + 1] = entry
  end
  at.last = at.last + #entries
  redis.call('XTRIM', log, 'MAXLEN', '~', whole(size))
  age(log, at, now, seconds)
  redis.call('HSET', meta, 'o', whole(at.last), 't', whole(now), 'x', whole(at.old_at))
  keep(log, meta, seconds)
  redis.call(publish, channel, table.concat(told))
end
`;

/**
 * A batch of one publisher, once: asked again, it answers what it did.
 *
 *   KEYS  log, meta, then the `once` keys that are used
 *   ARGV  channel, command to publish with, bytes of the prefix, publisher (12 bytes), sequence, candidate, size, seconds,
 *         known epoch, known offset, known time, seconds of `once` keys, then for each message: envelope, index of its key in KEYS or 0
 *   ret   time, then for each message 15 bytes: 1 for a repeated key or 0, epoch, offset
 */
export const appendScript = `${logFunctions}
local log, meta = KEYS[1], KEYS[2]
local channel, publish, prefix_bytes, publisher, sequence = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local size, seconds, once_seconds = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[12])
local at, problem = open_log(log, meta, ARGV[6], ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]))
if problem then return problem end
-- Times never fall, though clocks may: of another server, after a failover.
local now = math.max(now_ms(), at.time)
local answered = {}
for i = 3, #KEYS do
  local kind = kind_of(KEYS[i])
  if kind == 'string' then
    local value = redis.call('GET', KEYS[i])
    if #value ~= 34 then return damaged(KEYS[i]) end
    answered[i] = value
  elseif kind ~= 'none' then
    return damaged(KEYS[i])
  end
end
local field = 'p' .. publisher
local before = redis.call('HGET', meta, field)
if before and #before ~= 26 then return damaged(meta) end
local epoch, offset, is_again, time = at.epoch, at.last, false, now
if before then
  local past, past_epoch, past_offset, past_time = struct.unpack('>I6c8I6I6', before)
  if past == sequence then
    is_again, epoch, offset, time = true, past_epoch, past_offset, past_time
  elseif past > sequence then
    return redis.error_reply('RWSTALE a later batch of this publisher is there')
  end
elseif redis.call('HLEN', meta) > 64 then
  local all = redis.call('HGETALL', meta)
  for i = 1, #all, 2 do
    if #all[i] == 13 and string.sub(all[i], 1, 1) == 'p' and #all[i + 1] == 26 then
      local _, _, _, past_time = struct.unpack('>I6c8I6I6', all[i + 1])
      if past_time + 120000 < now then redis.call('HDEL', meta, all[i]) end
    end
  end
end
local first = offset
local entries, answers, fresh = {}, {}, {}
for i = 13, #ARGV, 2 do
  local key = tonumber(ARGV[i + 1])
  local owner = publisher .. struct.pack('>I6I2', sequence, (i - 13) / 2)
  local found = answered[key]
  if found and string.sub(found, 15) ~= owner then
    answers[#answers + 1] = string.char(1) .. string.sub(found, 1, 14)
  else
    offset = offset + 1
    local position = struct.pack('>c8I6', epoch, offset)
    answers[#answers + 1] = string.char(0) .. position
    if not is_again then
      entries[#entries + 1] = ARGV[i]
      if key > 0 then
        answered[key] = position .. owner
        fresh[#fresh + 1] = key
      end
    end
  end
end
if #entries > 0 then
  problem = append(log, meta, at, now, size, seconds, entries, publish, channel, prefix_bytes)
  if problem then return problem end
  for _, key in ipairs(fresh) do redis.call('SET', KEYS[key], answered[key], 'PX', whole(once_seconds * 1000)) end
  redis.call('HSET', meta, field, struct.pack('>I6c8I6I6', sequence, epoch, first, now))
elseif at.is_new then
  keep(log, meta, seconds)
end
return { whole(time), table.concat(answers) }
`;

/**
 *   KEYS  log, meta
 *   ARGV  candidate, size, seconds, known epoch, known offset, known time, 'after' | 'before' | 'last', offset, most entries, most bytes
 *   ret   epoch (empty: there is no log), offset of the last entry, then by turns the IDs and envelopes of entries: ascending for 'after', else
 *         the newest first; at least one, where there is one, however long
 */
export const readScript = `${logFunctions}
local log, meta = KEYS[1], KEYS[2]
local size, seconds, mode, from = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[7], tonumber(ARGV[8])
local most, room = tonumber(ARGV[9]), tonumber(ARGV[10])
local at, problem = open_log(log, meta, ARGV[1], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
if problem then return problem end
if at.is_new then keep(log, meta, seconds) end
local answer = { at.epoch, whole(at.last) }
local lowest = math.max(1, at.last - size + 1)
local young = first_young(log, lowest, at.last, now_ms() - seconds * 1000)
if not young then return answer end
lowest = math.max(lowest, young)
local is_up = mode == 'after'
local at_id = '+'
if is_up then
  at_id = whole(math.max(from + 1, lowest))
elseif mode == 'before' then
  if from <= lowest then return answer end
  at_id = whole(from - 1)
end
while most > 0 do
  local count = math.min(most, 32)
  local some
  if is_up then
    some = redis.call('XRANGE', log, at_id, '+', 'COUNT', count)
  else
    some = redis.call('XREVRANGE', log, at_id, whole(lowest), 'COUNT', count)
  end
  for _, entry in ipairs(some) do
    local offset = id_of(entry[1])
    local envelope = entry[2][2]
    if #answer > 2 and #envelope > room then return answer end
    answer[#answer + 1] = entry[1]
    answer[#answer + 1] = envelope
    room = room - #envelope
    most = most - 1
    at_id = whole(is_up and offset + 1 or offset - 1)
  end
  if #some < count or room <= 0 or at_id == '0' then return answer end
end
return answer
`;
