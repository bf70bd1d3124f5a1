/**
 * Tries whatever the scripts of logs and members ask of Redis, on a key of its own, which is gone when it returns.
 * Role: for `ringway doctor`, so that a right that is missing is known before the first start. Beside log-scripts.ts and member-scripts.ts.
 */

/**
 *   KEYS  one that nobody uses
 *   ARGV  a channel, command to publish with
 *   ret   OK, or the first error
 */
export const trialScript = `
local key, channel, publish = KEYS[1], ARGV[1], ARGV[2]
local trials = {
  { 'TIME' }, { 'TYPE', key }, { publish, channel, '' },
  { 'XADD', key, '*', 'm', 'x' }, { 'XTRIM', key, 'MINID', '0' }, { 'XRANGE', key, '-', '+' }, { 'XREVRANGE', key, '+', '-' }, { 'DEL', key },
  { 'HSET', key, 'a', '1' }, { 'HGET', key, 'a' }, { 'HMGET', key, 'a' }, { 'HLEN', key }, { 'HGETALL', key }, { 'HVALS', key },
  { 'HINCRBY', key, 'a', '1' }, { 'HDEL', key, 'a' }, { 'DEL', key },
  { 'SET', key, 'x', 'NX', 'PX', '1000' }, { 'GET', key }, { 'DEL', key },
  { 'SADD', key, 'a' }, { 'SCARD', key }, { 'SMEMBERS', key }, { 'SRANDMEMBER', key, '1' }, { 'SREM', key, 'a' }, { 'DEL', key },
  { 'ZADD', key, 'GT', '1', 'a' }, { 'ZSCORE', key, 'a' }, { 'ZRANGEBYSCORE', key, '-inf', '+inf' }, { 'ZREM', key, 'a' }, { 'DEL', key },
}
local problem
for _, trial in ipairs(trials) do
  local answer = redis.pcall(unpack(trial))
  if type(answer) == 'table' and answer.err then problem = problem or redis.error_reply('ERR ' .. trial[1] .. ': ' .. answer.err) end
  -- Whatever else is missing, the key ends.
  local expiry = redis.pcall('PEXPIRE', key, '1000')
  if type(expiry) == 'table' and expiry.err then problem = problem or redis.error_reply('ERR PEXPIRE: ' .. expiry.err) end
end
return problem or redis.status_reply('OK')
`;
