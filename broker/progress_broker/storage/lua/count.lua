-- Counts the operations of a lane that may match a query, by status. Changes nothing. If there are many to look at, it looks
-- at every second, or at every third, and so on.
--
-- KEYS  1 index
--       Derived: KEYS[1]..':order:created', KEYS[1]..':<field>:<value>' and ARGV[1]..id, which are only read.
-- ARGV  prefix look and the filters: [ANY lines]… [CREATED from to] [CHANGED from to] [LAST_EVENT from to] [ID_PREFIX text]
--          [ROOTS] [TEXT text] [WORKER text] [ERROR text] [METADATA], as in walk.lua
--       prefix  what an operation's own keys begin with
--       look    how many to look at at most
-- Reply {each how many-th was looked at; of how many it is not certain that they match; status, how many of those, status,
--       how many, …}.

local MOST_COMMANDS = 900

local given = {}
local at, wrong = read_options(3, FILTERS, given)
if wrong or ARGV[at] then
  return redis.error_reply(reject_arguments(wrong, at, 'prefix look ' .. FILTER_USAGE)[2])
end
local groups, fewest = read_groups(given.ANY)
local may_match = matcher(given, groups, fewest)

local cost = 5 -- commands that one operation takes, at most
for _, group in ipairs(groups) do
  if group ~= fewest then cost = cost + #group.keys end
end
local keys, ids, size = { KEYS[1] }, {}, ask('ZCARD', KEYS[1]) or 0
if fewest then keys, ids, size = fewest.keys, fewest.ids, fewest.size end
local most = math.max(1, math.min(tonumber(ARGV[2]), math.floor(MOST_COMMANDS / cost)))
local step = math.max(1, math.ceil(size / most))

local numbers, seen = {}, {}
local function look_at(id)
  if seen[id] then return end -- it is in several indexes
  seen[id] = true
  if not may_match(id) then return end
  local state = ask('HMGET', ARGV[1] .. id, 'status', 'schema', 'gone')
  if state and state[1] and state[2] == SCHEMA and not state[3] then numbers[state[1]] = (numbers[state[1]] or 0) + 1 end
end

local next_one = 0 -- by its place in all of them
local passed = 0
for _, key in ipairs(keys) do
  local number = ask('ZCARD', key) or 0
  if step == 1 then
    for _, id in ipairs(ask('ZRANGE', key, 0, -1) or {}) do look_at(id) end
  else
    while next_one < passed + number do
      look_at(redis.call('ZRANGE', key, next_one - passed, next_one - passed)[1])
      next_one = next_one + step
    end
  end
  passed = passed + number
end
for i, id in ipairs(ids) do
  if step == 1 or (passed + i) % step == 0 then look_at(id) end
end

local reply = { step, undecided }
for status, number in pairs(numbers) do reply[#reply + 1], reply[#reply + 2] = status, number end
return reply
