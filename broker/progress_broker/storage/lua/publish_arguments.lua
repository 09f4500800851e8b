-- What `publish.lua` is called with. It includes this file, and its header describes the arguments.

local id, args, at, wrong = ARGV[1], ARGV, 2, nil
local given_attempt, begins, worker, longer_ms, observes, traceparent, if_status, if_created, if_lease_expired
local after_producer, after_seq, after_known
while true do -- without tables of options, which would cost more than the rest of it
  local name, value = args[at], args[at + 1]
  if name == 'ATTEMPT' then given_attempt = value
  elseif name == 'WORKER' then worker = value
  elseif name == 'LEASE' then longer_ms = value
  elseif name == 'TRACEPARENT' then traceparent = value
  elseif name == 'IF_STATUS' then if_status = value
  elseif name == 'IF_CREATED' then if_created = value
  elseif name == 'AFTER' then after_producer, after_seq, at = value, args[at + 2] or '', at + 1
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
if after_seq and not string.find(after_seq, '^%d+$') then wrong = 'AFTER needs a producer and a seq' end
if begins and not given_attempt then wrong = 'BEGIN needs ATTEMPT' end
if longer_ms and observes then wrong = 'LEASE is not for an OBSERVER' end
if not (whole(given_attempt or '1') and whole(longer_ms or '1') and whole(if_created or '1')) then
  wrong = 'ATTEMPT, LEASE and IF_CREATED need whole numbers'
end
if wrong or args[at] then
  return reject_arguments(wrong, at, 'id [ATTEMPT n] [BEGIN] [WORKER name] [LEASE ms | OBSERVER] [TRACEPARENT tp]'
    .. ' [IF_STATUS status] [IF_CREATED ms] [IF_LEASE_EXPIRED] [AFTER name seq]'
    .. ' [EVENT type data [STATUS status] [PRODUCER name seq] [COUNT by of]]...')
end

if out_of_order then -- it would be taken for a repeat, and dropped
  local producer, earlier, later = unpack(out_of_order)
  return { 'invalid', "producer '" .. string.sub(producer, 1, 40) .. "' sends seq " .. string.sub(later, 1, 40)
    .. ' after seq ' .. string.sub(earlier, 1, 40) .. ' in the same batch: its seq has to go up. Nothing was stored' }
end
