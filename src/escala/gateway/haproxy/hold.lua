-- Hold a request while its service has no replica, until one is ready or the time is up (services with min = 0).
-- HAProxy Lua API: http://www.arpalert.org/src/haproxy-lua-api/2.8/ (register_action, msleep, now).

local PAUSE = 20 -- milliseconds between two looks; the request sleeps, the worker does not

local function clock()
    local now = core.now()
    return now.sec + now.usec / 1000000
end

core.register_action("escala_hold", { "http-req" }, function(txn, backend, seconds)
    local deadline = clock() + tonumber(seconds)
    while txn.f:nbsrv(backend) == 0 and clock() < deadline do
        core.msleep(PAUSE)
    end
end, 2)
