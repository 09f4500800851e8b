-- Appends events to an operation's log and to its lane's feed, all of them or none, and keeps its snapshot.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       (also changed: KEYS[5]..':<field>:<value>', in the same slot; the fields are those given at creation)
-- ARGV  1 operation's id
--       2 attempt that publishes, or '' for the present one; '+' and a number begins that attempt, the one after the
--         present one: the earlier one is fenced, its progress and its signals are forgotten. With '@' and the time in
--         ms at which the operation was created, that has to be right as well: an id may have been given anew
--       3 worker's name, or '' to leave it
--       4 status the operation must have now, or '' for any; with ' lapsed' after it, its lease must have lapsed too
--       5 how long its worker may be silent from now on, in milliseconds; '' for as long as its lease says; 0 when it is
--         not its worker that publishes: then the lease stays as it is, and a stalled operation stalled; with an
--         event that brings stalled, how long to wait for the worker
--       then five for each event: type, data (JSON), status it brings ('' for none), producer, seq
--       (both '' when a repeat need not be noticed; of one producer, seq must go up)
--       then, or not, the `traceparent` of who publishes, which goes to the feed with the last event, and nowhere else
--       Without an event it is a beat: the worker is alive, and a stalled operation runs again.
-- In a Redis that is full, beats and what brings an operation to its end (stalled, cancelling, an end) are stored all the
-- same: they are small, and let go of more than they take.
-- Reply {'ok', position, n, cancel} of the last event, or of its first taking if it is a repeat; cancel is 0, or the
--       data of the event that asked the worker to stop; or {code, detail}, and then nothing was changed.

local TERMINAL = { succeeded = true, failed = true, cancelled = true }
local NEXT = {
  pending = { running = true, cancelling = true },
  running = { running = true, stalled = true, cancelling = true },
  stalled = { running = true, cancelling = true },
  cancelling = {},
}
-- Names that a stream uses itself, or that EventSource does. But `child` is published, by who creates one.
local RESERVED = {
  error = true, open = true, snapshot = true, reconnect = true, replaced = true, ping = true, malformed = true,
  children = true, operations = true, missing = true,
}
local PRODUCERS = 256 -- remembered of each operation; past that the one silent longest is forgotten
local HEARD_MS = 60000 -- how long signals are kept past the end: workers that listen hear at once
local TOUCH_MS = 1000 -- how exact the order of listings and the idle limit are
local AHEAD_MS = 86400000 -- how far a clock may have been set back; what is further ahead, another program wrote

local function text(number) return string.format('%.0f', number) end
local function after(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms > b_ms or (a_ms == b_ms and tonumber(a_seq) > tonumber(b_seq))
end

local function whole(text) return text and #text <= 15 and string.find(text, '^%d+$') end -- and exact in Lua

-- Runs a command, or returns nil where another program wrote something of another type.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then return redis.call(...) end -- which raises it
end

local eases = false -- whether a Redis that is full is to store it
-- Writes to a key, anew where another program wrote something of another type, or has used up a stream's IDs.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(tostring(reply.err), 'WRONGTYPE', 1, true) or string.find(tostring(reply.err), ' ID', 1, true) then
    redis.call('DEL', key)
  elseif eases and string.find(tostring(reply.err), 'OOM', 1, true) then
    redis.call('HDEL', KEYS[1], '') -- a Redis that is full lets a script go on whose first write frees memory
  end
  return redis.call(command, key, ...)
end

local function signal(...) write('XADD', KEYS[3], 'MAXLEN', '~', '100', '*', 't', ...) end

local function forget(signals) -- but not their last ID: who has heard so far must not take new ones for old
  local trimmed = redis.pcall('XTRIM', signals, 'MAXLEN', '0')
  if type(trimmed) == 'table' and trimmed.err then redis.call('DEL', signals) end -- a foreign hand's
end

local function is_outcome(kind, data, status) -- the one event that is looked into: what ends must say so
  local read, outcome = pcall(cjson.decode, data)
  return kind == 'end' and read and type(outcome) == 'table' and outcome.status == status
end

local id = ARGV[1]
local state = ask('HMGET', KEYS[1], 'status', 'n', 'position', 'attempt', 'cancel', 'limits', 'lease_ms',
  'touched', 'indexes', 'gone', 'created', 'hold')
local odd = { 'not-found', 'what Redis holds as operation ' .. id .. ' is something else: another program wrote it' }
if not state then return odd end
if state[10] then return { 'gone', 'operation ' .. id .. ' was deleted' } end
local before = state[1]
if not before then return { 'not-found', 'there is no operation ' .. id } end
local begins, attempt, created = string.match(ARGV[2], '^(%+?)(%d*)@?(%d*)$')
if created ~= '' and created ~= state[11] then
  return { 'fenced', 'operation ' .. id .. ' was created anew since: this is another one' }
end
local history, feed_length, retention_ms, idle_ms = string.match(state[6] or '', '^(%d+) (%d+) (%d+) (%d+)$')
if not (NEXT[before] or TERMINAL[before]) or not string.find(state[3] or '', '^%d+%-%d+$')
  or not (whole(state[2]) and whole(state[4]) and whole(history) and whole(feed_length) and whole(retention_ms)
    and whole(idle_ms) and whole(state[7])) then
  if string.find(ARGV[4], 'lapsed', 1, true) then ask('ZREM', KEYS[7], id) end -- nobody can act on it
  return odd
end
local n, position, cancel = tonumber(state[2]), state[3], state[5] or 0
local first, last = 6, #ARGV - #ARGV % 5 -- of the arguments that tell events
local traceparent = ARGV[last + 1]

-- Repeats first: a publisher whose answer was lost gets it, whatever has happened since.
local seqs, fresh, answer = {}, {}, nil
for i = first, last, 5 do
  local producer, seq = ARGV[i + 3], ARGV[i + 4]
  local taken = nil
  if producer ~= '' then
    if not string.find(seq, '^%d+$') then return { 'invalid', "seq is a number that goes up, and not '" .. seq .. "'" } end
    if seqs[producer] == nil then
      local known = redis.call('HGET', KEYS[1], 'producer:' .. producer)
      seqs[producer] = known and string.match(known, '^%d+ %d+%-%d+ %d+$') or '0'
    end
    local last = tonumber(string.match(seqs[producer], '^%d+'))
    if tonumber(seq) <= last then taken = seqs[producer] else seqs[producer] = seq end
  end
  if not taken then
    fresh[#fresh + 1] = { ARGV[i], ARGV[i + 1], ARGV[i + 2], producer, seq }
    answer = nil
  else
    answer = { producer, seq, taken }
  end
end

if answer and #fresh == 0 then
  local producer, seq, taken = answer[1], answer[2], answer[3]
  local last_seq, last_position, last_n = string.match(taken, '^(%d+) (%S+) (%d+)')
  if last_seq ~= seq then -- an older one: its entry tells, as long as history is kept
    for _, entry in ipairs(ask('XREVRANGE', KEYS[2], last_position, '-') or {}) do
      local fields = {}
      for f = 1, #entry[2], 2 do fields[entry[2][f]] = entry[2][f + 1] end
      if fields.p == producer and fields.s == seq and whole(fields.n) then
        last_position, last_n = entry[1], fields.n
        break
      end
    end
  end
  return { 'ok', last_position, tonumber(last_n), cancel }
end

if TERMINAL[before] then return { 'operation-ended', 'operation ' .. id .. ' has ' .. before } end
local begun = begins ~= ''
if begun and tonumber(attempt) ~= tonumber(state[4]) + 1 then
  return { 'conflict', 'operation ' .. id .. ' is at attempt ' .. state[4] }
end
if not begun and attempt ~= '' and tonumber(attempt) < tonumber(state[4]) then
  return { 'fenced', 'attempt ' .. state[4] .. ' of operation ' .. id .. ' has taken over from attempt ' .. attempt }
end
local time = redis.call('TIME')
local clock = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local expected, lapsed = string.match(ARGV[4], '^(%a*)( ?%a*)$')
if expected ~= '' and expected ~= before then return { 'conflict', 'operation ' .. id .. ' is ' .. before } end
if lapsed ~= '' then
  local deadline = ask('ZSCORE', KEYS[7], id)
  if not deadline or tonumber(deadline) > clock then
    return { 'conflict', 'the worker of operation ' .. id .. ' is alive' }
  end
end

local at_work = ARGV[5] ~= '0' and lapsed == ''
local RUNNING = { 'status', '{"status":"running"}', 'running', '', '' }
local status, events = before, {}
eases = #fresh == 0
if #fresh == 0 and status == 'stalled' and at_work then
  events[1], status = RUNNING, 'running'
end
for _, event in ipairs(fresh) do
  local brings = event[3]
  if RESERVED[event[1]] then
    return { 'invalid', "an event can't be named '" .. event[1] .. "': EventSource or the server uses it itself" }
  end
  if TERMINAL[status] then
    return { 'operation-ended', 'an event follows the end of operation ' .. id .. ' in the same batch' }
  end
  if brings == '' and at_work and (status == 'stalled' or (status == 'pending' and event[1] == 'progress')) then
    events[#events + 1], status = RUNNING, 'running' -- who reports is at work
  end
  if brings ~= '' then
    if not TERMINAL[brings] and not NEXT[status][brings] then
      return { 'invalid', 'operation ' .. id .. ' is ' .. status .. ', which ' .. brings .. ' cannot follow' }
    end
    if TERMINAL[brings] and not is_outcome(event[1], event[2], brings) then
      return { 'invalid', 'an event that brings ' .. brings .. ' is an end, whose data is an object with that status' }
    end
    status = brings
    eases = TERMINAL[brings] or (#fresh == 1 and (brings == 'stalled' or brings == 'cancelling'))
  end
  events[#events + 1] = event
end

-- Nothing is refused from here on.
local changes = {}
local function set(field, value) changes[#changes + 1] = field; changes[#changes + 1] = value end
if begun then
  set('attempt', attempt)
  redis.call('HDEL', KEYS[1], 'progress', 'held', 'hold')
  state[12] = false
  forget(KEYS[3])
  if state[5] then signal('cancel', 'd', state[5]) end
  signal('changed', 'a', attempt) -- so that the earlier one looks
  redis.call('PEXPIRE', KEYS[3], redis.call('PTTL', KEYS[1]))
end

for i, event in ipairs(events) do
  local kind, data, producer, seq = event[1], event[2], event[4], event[5]
  n = n + 1
  local shown = { 'o', id, 'n', text(n), 't', kind, 'd', data }
  if traceparent and i == #events then shown[9], shown[10] = 'tp', traceparent end
  local kept = { 'n', text(n), 't', kind, 'd', data }
  if producer ~= '' then kept[7], kept[8], kept[9], kept[10] = 'p', producer, 's', seq end
  local at = write('XADD', KEYS[4], 'MAXLEN', '~', feed_length, '*', unpack(shown))
  local fits = i > 1 or after(at, position) -- the feed's IDs only grow, so one look is enough
  local stored = fits and redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', history, at, unpack(kept))
  if not stored or stored.err then -- the log is ahead: the feed began anew on a slow clock, or another program wrote
    local newest = ask('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
    local last = newest and newest[1] and newest[1][1]
    local ms, minor = string.match(last and after(last, position) and last or position, '(%d+)-(%d+)')
    if not newest or #minor > 15 or (last ~= position and tonumber(ms) > clock + AHEAD_MS) then
      -- Its own history is lost then, rather than that its lane's feed follows it into a distant future.
      if not last or not after(at, last) then redis.call('DEL', KEYS[2]) end
      redis.call('XADD', KEYS[2], at, unpack(kept))
      redis.call('PEXPIRE', KEYS[2], idle_ms)
    else
      redis.call('XDEL', KEYS[4], at)
      at = ms .. '-' .. text(tonumber(minor) + 1)
      redis.call('XADD', KEYS[4], at, unpack(shown))
      redis.call('XADD', KEYS[2], at, unpack(kept))
    end
  end
  position = at
  if producer ~= '' then seqs[producer] = seq .. ' ' .. at .. ' ' .. text(n) end
  if kind == 'progress' then set('progress', data) elseif kind == 'child' then set('parent', '1') end
  if event[3] == 'running' then
    redis.call('HSETNX', KEYS[1], 'started', string.match(at, '%d+'))
  elseif event[3] == 'cancelling' then
    cancel = data
    set('cancel', data)
    set('cancel_at', string.match(at, '%d+'))
    signal('cancel', 'd', data)
  elseif TERMINAL[event[3]] then
    set('outcome', data)
    signal('changed') -- so that all who work on it look
  end
end

-- By the server's clock, not by the position: that runs ahead of it once it was set back.
local lease, done = tonumber(state[7]), TERMINAL[status]
if done then
  ask('ZREM', KEYS[7], id)
elseif lease > 0 and status ~= 'pending' and (at_work or status ~= before and status == 'stalled') then
  local deadline = clock + (at_work and math.max(lease, tonumber(ARGV[5]) or 0) or tonumber(ARGV[5]) or lease)
  if at_work then deadline = math.max(deadline, tonumber(state[12] or '') or 0) end -- held for an attempt to come
  write('ZADD', KEYS[7], text(deadline), id)
  if ARGV[5] ~= '' then
    set('held', ARGV[5])
    if at_work then set('hold', text(deadline)) end
  end
end

local touched = tonumber(state[8] or '') or 0
local ms, touch_ms = text(math.max(clock, touched)), tonumber(idle_ms) / 4
if #events > 0 then
  ms, touch_ms = string.match(position, '%d+'), TOUCH_MS
  set('n', text(n))
  set('position', position)
  set('status', status)
  if ARGV[3] ~= '' then set('worker', ARGV[3]) end
  if done then set('finished', ms) end
end
local now = tonumber(ms)

for producer, last in pairs(seqs) do
  if string.find(last, ' ') and redis.call('HSET', KEYS[1], 'producer:' .. producer, last) == 1 then
    local producers = redis.pcall('HINCRBY', KEYS[1], 'producers', 1)
    if type(producers) == 'table' then -- an error: another program wrote what is no number
      producers = redis.call('HSET', KEYS[1], 'producers', '1')
    end
    if producers > PRODUCERS then
      local all, oldest, oldest_at = redis.call('HGETALL', KEYS[1]), nil, nil
      for f = 1, #all, 2 do
        local at = string.sub(all[f], 1, 9) == 'producer:' and string.match(all[f + 1], ' (%d+%-%d+) ')
        if at and (not oldest or after(oldest_at, at)) then oldest, oldest_at = all[f], at end
      end
      if oldest then redis.call('HDEL', KEYS[1], oldest) end
      redis.call('HINCRBY', KEYS[1], 'producers', -1)
    end
  end
end

if status ~= before or now - touched >= touch_ms then
  local keep = done and tonumber(retention_ms) or tonumber(idle_ms)
  local indexes = state[9] or ''
  if status ~= before then ask('ZREM', KEYS[5] .. ':status:' .. before, id) end
  write('ZADD', KEYS[5], ms, id)
  write('ZADD', KEYS[5] .. ':status:' .. status, ms, id)
  for suffix in string.gmatch(indexes, '[^\n]+') do write('ZADD', KEYS[5] .. ':' .. suffix, ms, id) end
  write('ZADD', KEYS[6], text(now + keep), id .. '\n' .. indexes)
  for key = 1, 3 do redis.call('PEXPIRE', KEYS[key], text(key == 3 and done and math.min(keep, HEARD_MS) or keep)) end
  set('expires', text(now + keep))
  set('touched', ms)
end
if #changes > 0 then redis.call('HSET', KEYS[1], unpack(changes)) end
return { 'ok', position, n, cancel }
