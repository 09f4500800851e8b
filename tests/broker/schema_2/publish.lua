-- Appends events to an operation's log and to its lane's feed, all of them or none, and keeps its snapshot.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       Derived: KEYS[4]..':length', which is only read; KEYS[5]..':status:<status>' and KEYS[5]..':<field>:<value>' of
--       what the operation was created with;
--       KEYS[2]..':kept' and KEYS[2]..':curve', where older events go. They are looked at before the first write, where
--       they are to change.
-- ARGV  id [option]… [EVENT type data [STATUS status] [PRODUCER name seq]]…
--       ATTEMPT n          the attempt that publishes: rejected as `fenced` if a later one has begun, and as
--                          `conflict` if it has not begun itself
--       BEGIN              begins that attempt, the one after the present one. The earlier one is fenced; its progress
--                          and its signals are forgotten
--       WORKER name        who works on it from now on
--       LEASE ms           how long the worker may be silent from now on, if that is longer than its lease
--       OBSERVER           the caller is not its worker: the lease stays as it is, and a stalled operation stalled
--       TRACEPARENT tp     that of the caller; it goes to the feed with the last event, and nowhere else
--       IF_STATUS status   rejected as `conflict` unless this is its status now
--       IF_CREATED ms      rejected as `fenced` unless it was created then: an id may be used again
--       IF_LEASE_EXPIRED   rejected as `conflict` unless the lease has expired. The caller is an observer, and LEASE
--                          says how long to wait for the worker
--       COUNT by of        follows PRODUCER of a progress: its publisher is one of several that count. `by` and `of` are
--                          added to what all have counted, and to the total. The sums replace current, total and percent,
--                          with which the data has to begin, here and in the progress of the publisher without COUNT.
--                          Data that has only rate and eta_ms after these leaves all other members as they are
--       EVENT type data    data is JSON. STATUS is the status it sets. PRODUCER makes it safe to send again: of one
--                          producer seq goes up, also within a batch, and what was stored before is answered as it
--                          was then
--       Without an event it is a heartbeat: the worker is alive, and a stalled operation runs again.
-- In a Redis that is full, heartbeats and what brings an operation to its end (stalled, cancelling, an end) are stored
-- all the same: they are small, and free more than they take.
-- Reply {'ok', position, n, cancel, counts} of the last event; if it is a repeat, as it was answered first. cancel is the
--       data of the event that asked the worker to stop, or nil. counts is nil, or if several publishers count: current
--       and total of the one without COUNT, and the sums of `by` and `of`. Or {code, detail}, and then nothing was changed.

-- The prelude.
-- Appends an event to its lane's feed and to its operation's log, under one ID. `publish.lua` includes this file.

local AHEAD_MS = 86400000 -- how far a clock may have been set back; what is further ahead, another program wrote

local function after(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  a_ms, b_ms = tonumber(a_ms), tonumber(b_ms)
  return a_ms > b_ms or (a_ms == b_ms and tonumber(a_seq) > tonumber(b_seq))
end

-- `shown` goes to the feed, which keeps `length` entries, and `kept` to the log. The event that was appended before it had
-- the ID `position`; `first` says that it was not appended by this call. Returns the ID.
local function append(shown, kept, first, position, length, clock, idle_ms)
  local at = write('XADD', KEYS[4], 'MAXLEN', '~', length, '*', unpack(shown))
  local fits = not first or after(at, position) -- the feed's IDs only grow, so one look is enough
  local stored = fits and redis.pcall('XADD', KEYS[2], at, unpack(kept))
  if stored and not stored.err then return at end
  -- The log is ahead: the feed restarted on a slow clock, or another program wrote.
  local newest = ask('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
  local last = newest and newest[1] and newest[1][1]
  local ms, minor = string.match(last and after(last, position) and last or position, '(%d+)-(%d+)')
  if not newest or #minor > 15 or (last ~= position and tonumber(ms) > clock + AHEAD_MS) then
    -- Its own history is lost then, rather than that its lane's feed follows it into a distant future.
    if not last or not after(at, last) then redis.call('DEL', KEYS[2]) end
    redis.call('XADD', KEYS[2], at, unpack(kept))
    redis.call('PEXPIRE', KEYS[2], idle_ms)
    return at
  end
  redis.call('XDEL', KEYS[4], at)
  at = ms .. '-' .. text(tonumber(minor) + 1)
  redis.call('XADD', KEYS[4], at, unpack(shown))
  redis.call('XADD', KEYS[2], at, unpack(kept))
  return at
end

-- What each producer has published last, so that what it sends again is answered and not stored. `publish.lua` includes
-- this file.

local PRODUCERS = 256 -- remembered of each operation; past that the one silent longest is forgotten
local LOOKED_BACK, LOOKED_BACK_BYTES = 250, 1000000 -- how far a repeat of an older seq is looked for in the log

-- Returns the position and the number that a seq was given first. `taken` is what is known of its producer's last one.
local function first_answer(producer, seq, taken)
  local last_seq, last_position, last_n = string.match(taken, '^(%d+) (%S+) (%d+)')
  local position, looked_at, bytes = last_position, 0, 0
  -- An older one: its entry tells, if it is not too far back. Entries are read one by one, as a long reply costs more.
  while last_seq ~= seq and looked_at < LOOKED_BACK and bytes < LOOKED_BACK_BYTES do
    local entry = (ask('XREVRANGE', KEYS[2], position, '-', 'COUNT', 1) or {})[1]
    if not entry then break end
    local fields = {}
    for f = 1, #entry[2], 2 do
      fields[entry[2][f]] = entry[2][f + 1]
      bytes = bytes + #entry[2][f + 1]
    end
    if fields.p == producer and fields.s == seq and whole(fields.n) then return entry[1], tonumber(fields.n) end
    position, looked_at = '(' .. entry[1], looked_at + 1
  end
  return last_position, tonumber(last_n)
end

-- Stores the last seq of each producer, with its position and number.
local function remember(seqs)
  local added, producers = 0, 0
  for producer, last in pairs(seqs) do
    if string.find(last, ' ') then added = added + redis.call('HSET', KEYS[1], 'producer:' .. producer, last) end
  end
  if added > 0 then
    producers = redis.pcall('HINCRBY', KEYS[1], 'producers', added)
    if type(producers) == 'table' then -- an error: another program wrote what is no number
      redis.call('HSET', KEYS[1], 'producers', added)
      producers = added
    end
  end
  if producers > PRODUCERS then
    local all, known = redis.call('HGETALL', KEYS[1]), {}
    for f = 1, #all, 2 do
      if string.sub(all[f], 1, 9) == 'producer:' then
        local last_n = string.match(all[f + 1], '^%d+ %d+%-%d+ (%d+)$')
        known[#known + 1] = { all[f], tonumber(last_n or '0') }
      end
    end
    table.sort(known, function(one, other) return one[2] < other[2] end)
    for i = 1, #known - PRODUCERS do redis.call('HDEL', KEYS[1], known[i][1]) end
    redis.call('HSET', KEYS[1], 'producers', text(math.min(#known, PRODUCERS)))
  end
end

-- Adds up what several publishers count on one operation. `publish.lua` includes this file.

local PACE = '^(,"rate":[%dnul.eE+-]+,"eta_ms":[%dnul.eE+-]+)(.*)$'
local HEAD = '^{"current":([%dnul.eE+-]+),"total":([%dnul.eE+-]+),"percent":([%dnul.eE+-]+)(.*)$'

local function number(value) -- the shortest text that says it
  local short = string.format('%.15g', value)
  return tonumber(short) == value and short or string.format('%.17g', value)
end

-- Returns a progress with the sums of all who count, and their counts: 'current total by of', as in the reply.
local function add_up(data, counts, by, of)
  local current, total, percent, rest = string.match(data, HEAD)
  if not current then return data, counts end
  local own, own_total, theirs, their_total = string.match(counts or '', '^(%S+) (%S+) (%S+) (%S+)$')
  local known = (by or not own) and redis.call('HGET', KEYS[1], 'progress') or ''
  local known_current, known_total, known_percent, known_rest = string.match(known, HEAD)
  if not own then
    own, own_total = known_current, known_total
    own, own_total, theirs, their_total = own or 'null', own_total or 'null', '0', '0'
  end
  local pace, more = string.match(rest, PACE)
  if by and more == '}' and known_rest then -- it only counts: all else stays as it is
    local _, known_more = string.match(known_rest, PACE)
    percent, rest = known_percent, pace .. (known_more or known_rest)
  elseif by and percent == 'null' then
    percent = known_percent or percent
  end
  if by then
    theirs, their_total = number(tonumber(theirs) + tonumber(by)), number(tonumber(their_total) + tonumber(of))
  else
    own, own_total = current, total
  end
  local done, whole = math.max(0, (tonumber(own) or 0) + tonumber(theirs)), (tonumber(own_total) or 0) + their_total
  if whole > 0 then percent = number(math.floor(math.min(100, 100 * done / whole) * 100 + 1e-9) / 100) end
  return '{"current":' .. (own == 'null' and theirs == '0' and own or number(done))
    .. ',"total":' .. (own_total == 'null' and their_total == '0' and own_total or number(whole))
    .. ',"percent":' .. percent .. rest, table.concat({ own, own_total, theirs, their_total }, ' ')
end

-- Moves the oldest events of a log to where less of them is kept. `publish.lua` includes this file.
--
-- The log keeps each of the newest events: its window. An older event that is not `progress` moves to `<log>:kept`, which
-- keeps the newest HISTORY of them. Older progress moves to `<log>:curve`, which keeps points of the operation's whole
-- life, evenly spread in time: when there are too many, the distance between them is made longer, and the stream is
-- written anew. Deleting single entries of a stream would free no memory until whole nodes are empty.

local WINDOW = 1000 -- events of a log's window at most
local STEP = 100 -- events that are moved together: a node of a stream
local POINTS = 400 -- points of a curve at most
local MOST_FIELDS = 100 -- names and values of an entry

local function milliseconds(position) return tonumber((string.match(position, '^%d+'))) end

local function window_of(history_length) return math.min(tonumber(history_length), WINDOW) end

-- Writes a curve anew, with about half of its points; returns the distance between them, in milliseconds.
local function thin(curve)
  local points = ask('XRANGE', curve, '-', '+') or {}
  local last = #points > 0 and milliseconds(points[#points][1])
  local distance = last and math.ceil((last - milliseconds(points[1][1])) * 2 / POINTS) or 0
  redis.call('DEL', curve)
  local shown, due
  for at, point in ipairs(points) do
    -- Of points of one millisecond, which no distance can tell apart, every second.
    if distance > 0 and (not due or milliseconds(point[1]) >= due) or distance == 0 and at % 2 == 1 then
      redis.call('XADD', curve, point[1], unpack(point[2]))
      shown = milliseconds(point[1])
      due = shown + distance
    end
  end
  return distance
end

-- Shortens a log to its window. `archived` is the number of the last event that was moved before, and `distance` that
-- between the points of the curve. Returns both as they are now.
local function archive(log, window, history_length, archived, distance)
  local kept, curve = log .. ':kept', log .. ':curve'
  local length = ask('XLEN', log) or 0
  local oldest = ask('XRANGE', log, '-', '+', 'COUNT', math.max(1, math.min(length - window, 2 * WINDOW))) or {}
  local first
  local moved = 0
  local points, point = ask('XLEN', curve) or 0, ask('XREVRANGE', curve, '+', '-', 'COUNT', 1)
  local due = point and point[1] and milliseconds(point[1][1]) + distance or 0
  for _, entry in ipairs(oldest) do
    local fields, kind, n = entry[2], nil, nil
    for f = 1, #fields, 2 do
      if fields[f] == 't' then kind = fields[f + 1] elseif fields[f] == 'n' then n = fields[f + 1] end
    end
    n = kind and #fields <= MOST_FIELDS and whole(n) and tonumber(n) -- else another program wrote it
    if n and not first then
      first = n
      if archived == 0 or n ~= archived + 1 then -- what is there is of an earlier operation, or lacks events
        redis.call('DEL', kept, curve)
        archived, distance, points, due = n - 1, 0, 0, 0
      end
      if length <= window then break end -- somebody else has trimmed it
    end
    if n then
      if kind ~= 'progress' then
        write('XADD', kept, 'MAXLEN', '~', history_length, entry[1], unpack(fields))
      elseif milliseconds(entry[1]) >= due then
        write('XADD', curve, entry[1], unpack(fields))
        points = points + 1
        if points > POINTS then
          distance = thin(curve)
          points = redis.call('XLEN', curve)
        end
        due = milliseconds(entry[1]) + distance
      end
      archived = n
    end
    moved = moved + 1
  end
  if moved > 0 then redis.call('XTRIM', log, 'MAXLEN', text(length - moved)) end
  return archived, distance
end

local OPEN = { pending = true, running = true, stalled = true, cancelling = true }
-- Names that a stream uses itself, or that EventSource does. But `child` is published, by the creator of a child.
local RESERVED = {
  error = true, open = true, snapshot = true, reconnect = true, replaced = true, ping = true, malformed = true,
  children = true, operations = true, missing = true, bookmark = true,
}
local SIGNALS_KEPT_MS = 60000 -- how long signals are kept past the end: workers that listen hear at once
local TOUCH_MS = 1000 -- how exact the order of listings and the idle limit are

local function may_become(status, another) -- of one that has not ended
  if another == 'stalled' then return status == 'running' end
  if another == 'running' or another == 'cancelling' then return status ~= 'cancelling' end
  return TERMINAL[another]
end

local function signal(...) write('XADD', KEYS[3], 'MAXLEN', '~', '100', '*', 't', ...) end

local function is_outcome(kind, data, status) -- the one event that is looked into: what ends an operation must say so
  local read, outcome = pcall(cjson.decode, data)
  return kind == 'end' and read and type(outcome) == 'table' and outcome.status == status
end

local id, args, at, wrong = ARGV[1], ARGV, 2, nil
local given_attempt, begins, worker, longer_ms, observes, traceparent, if_status, if_created, if_lease_expired
while true do -- without tables of options, which would cost more than the rest of it
  local name, value = args[at], args[at + 1]
  if name == 'ATTEMPT' then given_attempt = value
  elseif name == 'WORKER' then worker = value
  elseif name == 'LEASE' then longer_ms = value
  elseif name == 'TRACEPARENT' then traceparent = value
  elseif name == 'IF_STATUS' then if_status = value
  elseif name == 'IF_CREATED' then if_created = value
  elseif name == 'BEGIN' then begins, at = true, at - 1
  elseif name == 'OBSERVER' then observes, at = true, at - 1
  elseif name == 'IF_LEASE_EXPIRED' then if_lease_expired, at = true, at - 1
  else break end
  at = at + 2
end
local requested = {} -- events as {type, data, status, producer, seq}; false for what is not given
local seqs_asked, out_of_order = {}, nil
while args[at] == 'EVENT' do
  local event = { args[at + 1], args[at + 2], false, false, false }
  at = at + 3
  while true do
    if args[at] == 'STATUS' then event[3], at = args[at + 1], at + 2
    elseif args[at] == 'PRODUCER' then event[4], event[5], at = args[at + 1], args[at + 2], at + 3
    elseif args[at] == 'COUNT' then event[6], event[7], at = args[at + 1] or '', args[at + 2] or '', at + 3
    else break end
  end
  if event[5] and not string.find(event[5], '^%d+$') then
    wrong = "seq is a number that goes up, and not '" .. string.sub(event[5], 1, 40) .. "'"
  elseif event[5] then
    local earlier = seqs_asked[event[4]]
    if earlier and tonumber(event[5]) <= tonumber(earlier) then out_of_order = { event[4], earlier, event[5] } end
    seqs_asked[event[4]] = event[5]
  end
  if event[6] and not (event[1] == 'progress' and string.match(event[2], HEAD)
    and string.find(event[6], '^-?%d[%d.eE+-]*$') and tonumber(event[6])
    and string.find(event[7], '^-?%d[%d.eE+-]*$') and tonumber(event[7])) then
    wrong = 'COUNT needs two numbers, and a progress that begins with current, total and percent'
  end
  requested[#requested + 1] = event
end
if at > #args + 1 then wrong = 'the last option or event lacks a value' end
if begins and not given_attempt then wrong = 'BEGIN needs ATTEMPT' end
if longer_ms and observes then wrong = 'LEASE is not for an OBSERVER' end
if not (whole(given_attempt or '1') and whole(longer_ms or '1') and whole(if_created or '1')) then
  wrong = 'ATTEMPT, LEASE and IF_CREATED need whole numbers'
end
if wrong or args[at] then
  return reject_arguments(wrong, at, 'id [ATTEMPT n] [BEGIN] [WORKER name] [LEASE ms | OBSERVER] [TRACEPARENT tp]'
    .. ' [IF_STATUS status] [IF_CREATED ms] [IF_LEASE_EXPIRED]'
    .. ' [EVENT type data [STATUS status] [PRODUCER name seq] [COUNT by of]]...')
end

if out_of_order then -- it would be taken for a repeat, and dropped
  local producer, earlier, later = unpack(out_of_order)
  return { 'invalid', "producer '" .. string.sub(producer, 1, 40) .. "' sends seq " .. string.sub(later, 1, 40)
    .. ' after seq ' .. string.sub(earlier, 1, 40) .. ' in the same batch: its seq has to go up. Nothing was stored' }
end

local snapshot = ask('HMGET', KEYS[1], 'gone', 'schema', 'status', 'n', 'position', 'attempt', 'cancel', 'created',
  'lease_ms', 'lease_floor_ms', 'listed_ms', 'indexes', 'history_length', 'feed_length', 'retention_ms', 'idle_ms',
  'archived', 'curve_ms', 'counts')
if not snapshot then return reject_schema(id, nil) end
local gone, schema, before, n, position, attempt, cancel, created, lease_ms, lease_floor_ms, listed_ms, indexes,
  history_length, asked_length, retention_ms, idle_ms, archived, curve_ms, counts = unpack(snapshot)
if gone then return { 'gone', 'operation ' .. id .. ' was deleted' } end
if not before then return { 'not-found', 'there is no operation ' .. id } end
local other_schema = whole(schema) and reject_schema(id, schema)
if other_schema then return other_schema end
if if_created and if_created ~= created then
  return { 'fenced', 'operation ' .. id .. ' was created again since; this call is for the earlier one' }
end
if schema ~= SCHEMA or not (OPEN[before] or TERMINAL[before]) or not string.find(position or '', '^%d+%-%d+$')
  or not (whole(n) and whole(attempt) and whole(history_length) and whole(asked_length) and whole(retention_ms)
    and whole(idle_ms) and whole(lease_ms or '0')) then
  if if_lease_expired then ask('ZREM', KEYS[7], id) end -- nobody can act on it
  return reject_schema(id, nil)
end
n = tonumber(n)
archived, curve_ms = whole(archived) and tonumber(archived) or 0, whole(curve_ms) and tonumber(curve_ms) or 0
if archived > n then archived = 0 end

-- Repeats first: a publisher whose answer was lost gets it, whatever has happened since.
local seqs, fresh, repeated = {}, {}, nil
for _, event in ipairs(requested) do
  local producer, seq, taken = event[4], event[5], nil
  if producer then
    if seqs[producer] == nil then
      local known = redis.call('HGET', KEYS[1], 'producer:' .. producer)
      seqs[producer] = known and string.match(known, '^%d+ %d+%-%d+ %d+$') or '0'
    end
    local last = tonumber(string.match(seqs[producer], '^%d+'))
    if tonumber(seq) <= last then taken = seqs[producer] else seqs[producer] = seq end
  end
  if taken then
    repeated = { producer, seq, taken }
  else
    fresh[#fresh + 1], repeated = event, nil
  end
end

if repeated and #fresh == 0 then
  local first_position, first_n = first_answer(unpack(repeated))
  return { 'ok', first_position, first_n, cancel, counts }
end

if TERMINAL[before] then return { 'operation-ended', 'operation ' .. id .. ' is already ' .. before } end
if begins and tonumber(given_attempt) ~= tonumber(attempt) + 1 then
  return { 'conflict', 'operation ' .. id .. ' is at attempt ' .. attempt }
end
if given_attempt and not begins and tonumber(given_attempt) > tonumber(attempt) then
  return { 'conflict', 'operation ' .. id .. ' is at attempt ' .. attempt .. ', and attempt ' .. given_attempt
    .. ' has not begun: its first publish needs BEGIN' }
end
if given_attempt and tonumber(given_attempt) < tonumber(attempt) then
  return { 'fenced', 'attempt ' .. attempt .. ' of operation ' .. id .. ' has taken over from attempt ' .. given_attempt }
end
if if_status and if_status ~= before then
  return { 'conflict', 'operation ' .. id .. ' is ' .. before .. ', and not ' .. if_status }
end
local clock = now_ms()
if if_lease_expired then
  local deadline = ask('ZSCORE', KEYS[7], id)
  if not deadline or tonumber(deadline) > clock then
    return { 'conflict', 'the lease of operation ' .. id .. ' has not expired: its worker is alive' }
  end
end

local by_worker = not (observes or if_lease_expired)
local RUNNING = { 'status', '{"status":"running"}', 'running' }
local status, events, small = before, {}, #fresh == 0
if #fresh == 0 and status == 'stalled' and by_worker then
  events[1], status = RUNNING, 'running'
end
for _, event in ipairs(fresh) do
  local kind, new_status = event[1], event[3]
  if RESERVED[kind] then
    return { 'invalid', "an event can't be named '" .. kind .. "': EventSource or the server uses it itself" }
  end
  if TERMINAL[status] then
    return { 'operation-ended', 'an event follows the end of operation ' .. id .. ' in the same batch' }
  end
  if kind == 'end' and not TERMINAL[new_status] then
    return { 'invalid', "an event 'end' needs STATUS succeeded, failed or cancelled: without it, the operation would go"
      .. ' on, although its streams have closed' }
  end
  if new_status then
    if not may_become(status, new_status) then
      return { 'invalid', 'operation ' .. id .. ' is ' .. status .. ', and can not become ' .. new_status }
    end
    if TERMINAL[new_status] and not is_outcome(kind, event[2], new_status) then
      return { 'invalid', 'the status ' .. new_status .. ' needs an end event, whose data is an object with that status' }
    end
    status = new_status
    small = TERMINAL[new_status] or (#fresh == 1 and (new_status == 'stalled' or new_status == 'cancelling'))
  elseif by_worker and (status == 'stalled' or (status == 'pending' and kind == 'progress')) then
    events[#events + 1], status = RUNNING, 'running' -- a worker that reports is at work
  end
  events[#events + 1] = event
end

indexes = indexes or ''
local listed_at = tonumber(listed_ms or '') or 0
local lists = status ~= before or clock - listed_at >= (#events > 0 and TOUCH_MS or tonumber(idle_ms) / 4)
local listed, length = {}, #events > 0 and feed_length(KEYS[4], asked_length)
if lists then
  listed = index_keys(KEYS[5], indexes .. '\nstatus:' .. status)
  if status ~= before then listed[#listed + 1] = KEYS[5] .. ':status:' .. before end
  look(listed)
end
local window = window_of(history_length)
local moves = n + #events - archived >= window + STEP
if moves or lists and archived > 0 then look({ KEYS[2] .. ':kept', KEYS[2] .. ':curve' }) end

-- Nothing is rejected from here on.
frees = small and KEYS[1] or nil
local changes, places = {}, {}
local function set(field, value)
  local place = places[field] or #changes + 2
  changes[place - 1], changes[place], places[field] = field, value, place
end
if begins then
  set('attempt', given_attempt)
  redis.call('HDEL', KEYS[1], 'progress', 'counts', 'lease_override_ms', 'lease_floor_ms')
  lease_floor_ms, counts = false, false
  forget(KEYS[3])
  if cancel then signal('cancel', 'd', cancel) end
  signal('changed', 'a', given_attempt) -- so that the earlier one looks
  redis.call('PEXPIRE', KEYS[3], redis.call('PTTL', KEYS[1]))
end

for i, event in ipairs(events) do
  if event[1] == 'progress' and (counts or event[6]) then
    event[2], counts = add_up(event[2], counts, event[6], event[7])
    if counts then set('counts', counts) end
  end
  local kind, data, new_status, producer, seq = event[1], event[2], event[3], event[4], event[5]
  n = n + 1
  local shown = { 'o', id, 'n', text(n), 't', kind, 'd', data }
  if traceparent and i == #events then shown[9], shown[10] = 'tp', traceparent end
  local kept = { 'n', text(n), 't', kind, 'd', data }
  if producer then kept[7], kept[8], kept[9], kept[10] = 'p', producer, 's', seq end
  local at = append(shown, kept, i == 1, position, length, clock, idle_ms)
  position = at
  if producer then seqs[producer] = seq .. ' ' .. at .. ' ' .. text(n) end
  if kind == 'progress' then set('progress', data) elseif kind == 'child' then set('has_children', '1') end
  if new_status == 'running' then
    redis.call('HSETNX', KEYS[1], 'started', string.match(at, '%d+'))
  elseif new_status == 'cancelling' then
    cancel = data
    set('cancel', data)
    set('cancel_at', string.match(at, '%d+'))
    signal('cancel', 'd', data)
  elseif TERMINAL[new_status] then
    set('outcome', data)
    signal('changed') -- so that all who work on it look
  end
end

-- By the server's clock, not by the position: that runs ahead of it once it was set back.
local lease, longer, done = tonumber(lease_ms or '0'), tonumber(longer_ms or ''), TERMINAL[status]
if done then
  ask('ZREM', KEYS[7], id)
elseif lease > 0 and status ~= 'pending' and (by_worker or status ~= before and status == 'stalled') then
  local deadline = clock + (by_worker and math.max(lease, longer or 0) or longer or lease)
  if by_worker then deadline = math.max(deadline, tonumber(lease_floor_ms or '') or 0) end -- for the next attempt
  write('ZADD', KEYS[7], text(deadline), id)
  if longer and deadline <= clock + longer then -- else the deadline is that of an earlier LEASE, which goes on to count
    set('lease_override_ms', longer_ms)
    if by_worker then set('lease_floor_ms', text(deadline)) end
  end
end

local ms = text(math.max(clock, listed_at))
if #events > 0 then
  ms = string.match(position, '%d+')
  set('n', text(n))
  set('position', position)
  set('status', status)
  if worker then set('worker', worker) end
  if done then set('finished', ms) end
end

remember(seqs)

if lists then
  local keep = tonumber(done and retention_ms or idle_ms)
  if status ~= before then ask('ZREM', table.remove(listed), id) end
  write('ZADD', KEYS[5], ms, id)
  for _, key in ipairs(listed) do write('ZADD', key, ms, id) end
  local expires = text(tonumber(ms) + keep)
  write('ZADD', KEYS[6], expires, id .. '\n' .. indexes)
  local keep_signals = done and math.min(keep, SIGNALS_KEPT_MS) or keep
  for key = 1, 3 do redis.call('PEXPIRE', KEYS[key], text(key == 3 and keep_signals or keep)) end
  if archived > 0 and not moves then
    redis.call('PEXPIRE', KEYS[2] .. ':kept', text(keep))
    redis.call('PEXPIRE', KEYS[2] .. ':curve', text(keep))
  end
  set('expires', expires)
  set('listed_ms', ms)
end
if moves then
  archived, curve_ms = archive(KEYS[2], window, history_length, archived, curve_ms)
  set('archived', text(archived))
  set('curve_ms', text(curve_ms))
  local left = redis.call('PTTL', KEYS[1])
  redis.call('PEXPIRE', KEYS[2] .. ':kept', left)
  redis.call('PEXPIRE', KEYS[2] .. ':curve', left)
end
if #changes > 0 then redis.call('HSET', KEYS[1], unpack(changes)) end
if repeated then position, n = first_answer(unpack(repeated)) end
return { 'ok', position, n, cancel, counts }
