-- Appends events to an operation's log and to its lane's feed, all of them or none, and keeps its snapshot.
--
-- KEYS  1 snapshot  2 log  3 signals  4 feed  5 index  6 expiry  7 leases
--       Derived: KEYS[4]..':length', which is only read; KEYS[5]..':status:<status>' and KEYS[5]..':<field>:<value>' of
--       what the operation was created with, and of its metadata;
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
--       AFTER name seq     rejected as `gap` unless the last seq that is stored of this producer is at least that: the
--                          caller was told so, and Redis has lost it since. One that may have been forgotten passes
--       COUNT by of        follows PRODUCER of a progress: its publisher is one of several that count. `by` and `of` are
--                          added to what all have counted, and to the total. The sums replace current, total and percent,
--                          with which the data has to begin, here and in the progress of the publisher without COUNT.
--                          Data that has only rate and eta_ms after these leaves all other members as they are
--       EVENT type data    data is JSON. The data of `metadata` are the changes, an object. STATUS is the status it sets. PRODUCER makes it safe to send again: of one
--                          producer seq goes up, also within a batch, and what was stored before is answered as it
--                          was then
--       Without an event it is a heartbeat: the worker is alive, and a stalled operation runs again.
-- In a Redis that is full, heartbeats and what brings an operation to its end (stalled, cancelling, an end) are stored
-- all the same: they are small, and free more than they take.
-- Reply {'ok', position, n, cancel, counts} of the last event; if it is a repeat, as it was answered first. cancel is the
--       data of the event that asked the worker to stop, or nil. counts is nil, or if several publishers count: current
--       and total of the one without COUNT, and the sums of `by` and `of`. Or {code, detail}, and then nothing was changed;
--       after `gap` comes the last seq that is stored.

local SIGNALS_KEPT_MS = 60000 -- how long signals are kept past the end: workers that listen hear at once
local TOUCH_MS = 1000 -- how exact the order of listings and the idle limit are

local function signal(...) write('XADD', KEYS[3], 'MAXLEN', '~', '100', '*', 't', ...) end

-- Repeats first: a publisher whose answer was lost gets it, whatever has happened since.
local seqs, fresh, repeated = {}, {}, nil
for _, event in ipairs(requested) do
  local producer, seq, taken = event[4], event[5], nil
  if producer then
    if seqs[producer] == nil then
      seqs[producer] = known_of(producer)
      if producer == after_producer then after_known = seqs[producer] end
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
  -- A write, as WAIT may wait for those of its connection only, and the end was another one's.
  if TERMINAL[before] then redis.pcall('HSET', KEYS[1], 'status', before) end
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
if after_seq then
  local last = string.match(after_known or known_of(after_producer), '^%d+')
  if tonumber(last) < tonumber(after_seq) and not (last == '0' and forgets()) then
    return { 'gap', 'Redis has the events of producer ' .. string.sub(after_producer, 1, 64) .. ' up to seq ' .. last
      .. ' and not up to seq ' .. string.sub(after_seq, 1, 20) .. ', as after a failover: send the later ones again',
      tonumber(last) }
  end
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
  if kind == 'metadata' then
    local rejected = change_metadata(id, event[2])
    if rejected then return rejected end
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

local indexes_before, unlisted = indexes or '', nil
indexes, unlisted = indexes_after(indexes_before)
local listed_at = tonumber(listed_ms or '') or 0
local lists = status ~= before or indexes ~= indexes_before or clock - listed_at >= (#events > 0 and TOUCH_MS or tonumber(idle_ms) / 4)
local listed, length = {}, #events > 0 and feed_length(KEYS[4], asked_length)
if lists then
  listed = index_keys(KEYS[5], indexes .. '\nstatus:' .. status)
  if status ~= before then listed[#listed + 1] = KEYS[5] .. ':status:' .. before end
  look(listed)
  look(unlisted)
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
  redis.call('HDEL', KEYS[1], 'progress', 'counts', 'stage_counts', 'lease_override_ms', 'lease_floor_ms')
  lease_floor_ms, counts, stage_counts = false, false, false
  forget(KEYS[3])
  if cancel then signal('cancel', 'd', cancel) end
  signal('changed', 'a', given_attempt) -- so that the earlier one looks
  redis.call('PEXPIRE', KEYS[3], redis.call('PTTL', KEYS[1]))
end

for i, event in ipairs(events) do
  if event[1] == 'progress' and (counts or event[6]) then
    event[2], counts, stage_counts = add_up(event[2], changes[places.progress], counts, event[6], event[7], stage_counts)
    for name, value in pairs({ counts = counts, stage_counts = stage_counts }) do if value then set(name, value) end end
  end
  local kind, data, new_status, producer, seq = event[1], event[2], event[3], event[4], event[5]
  n = n + 1
  local shown = { 'o', id, 'n', text(n), 't', kind, 'd', data }
  if TERMINAL[new_status] then shown[9], shown[10] = 'k', string.match('\n' .. indexes, '\nkind:([^\n]*)') or '' end
  if traceparent and i == #events then shown[#shown + 1], shown[#shown + 2] = 'tp', traceparent end
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

if changed_metadata then set('metadata', changed_metadata) end
remember(seqs)

if lists then
  local keep = tonumber(done and retention_ms or idle_ms)
  if status ~= before then ask('ZREM', table.remove(listed), id) end
  write('ZADD', KEYS[5], ms, id)
  for _, key in ipairs(listed) do write('ZADD', key, ms, id) end
  for _, key in ipairs(unlisted) do ask('ZREM', key, id) end
  if indexes ~= indexes_before then
    ask('ZREM', KEYS[6], id .. '\n' .. indexes_before)
    set('indexes', indexes)
  end
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
  archived, curve_ms = move_older_events(KEYS[2], window, history_length, archived, curve_ms, #events)
  set('archived', text(archived))
  set('curve_ms', text(curve_ms))
  local left = redis.call('PTTL', KEYS[1])
  redis.call('PEXPIRE', KEYS[2] .. ':kept', left)
  redis.call('PEXPIRE', KEYS[2] .. ':curve', left)
end
if #changes > 0 then redis.call('HSET', KEYS[1], unpack(changes)) end
if repeated then position, n = first_answer(unpack(repeated)) end
return { 'ok', position, n, cancel, counts }
