# generalized.json + generalized_data -> generalized_reference/<name>.json: generalized models.
#
# Usage: OPENBLAS_NUM_THREADS=1 Rscript generalized.R [regular expressions of names] [new]
# Several expressions, with commas between: models in that order.
# "new": only those that have no reference yet.
#
# Three programs, none of which knows of another:
#   glmmTMB     finds the optimum (Laplace, observed information, exact gradient), Newton-polished;
#   definition  this file's own code: -2 log L = 2 h(u) + log|M| with the observed Hessian M at the
#               mode, or quadrature around it. Every stored number is its value at the optimum;
#   lme4        its criterion at the same points, where its likelihood is the same one: canonical
#               links, quadrature, expected information.
# Where glmmTMB has no such model (inverse Gaussian, cauchit, prior weights of a scale, quadrature),
# the optimum is that of the definition, by differences. `agreement` says how far the programs are apart.

suppressPackageStartupMessages({
  library(Matrix)
  library(lme4)
  library(glmmTMB)
  library(jsonlite)
  library(numDeriv)
  library(statmod)
})
invisible(Sys.setlocale("LC_COLLATE", "C"))

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
user <- commandArgs(trailingOnly = TRUE)
wanted <- if (length(user)) user[1] else "."
only_new <- length(user) > 1 && user[2] == "new"
registry <- fromJSON(file.path(here, "generalized.json"), simplifyVector = FALSE)

# Data --------------------------------------------------------------------------------------------
table_of <- function(name) {
  data <- read.csv(file.path(here, "generalized_data", paste0(name, ".csv.gz")),
                   stringsAsFactors = TRUE)
  declared <- registry$levels[[name]]
  for (column in names(declared))
    data[[column]] <- factor(data[[column]], levels = unlist(declared[[column]]))
  data
}

# Proportions y, trials or prior weights m.
response_of <- function(model, formula, data) {
  lhs <- formula[[2]]
  value <- eval(lhs, data)
  weights <- if (is.null(model$weights)) rep(1, nrow(data)) else data[[model$weights]]
  if (model$family != "binomial") return(list(y = as.numeric(value), m = weights))
  if (is.matrix(value)) return(list(y = value[, 1] / rowSums(value), m = rowSums(value)))
  if (is.call(lhs) && identical(lhs[[1]], as.name("/")))
    return(list(y = value, m = eval(lhs[[3]], data)))
  if (is.factor(value)) value <- as.integer(value) - 1L
  list(y = as.numeric(value), m = weights)
}

problem_of <- function(model) {
  data <- table_of(model$data)
  formula <- as.formula(model$formula)
  response <- response_of(model, formula, data)
  right <- formula
  right[[2]] <- as.name(".y")
  data$.y <- response$y
  design <- suppressWarnings(lFormula(right, data, REML = FALSE, control = lmerControl(
    check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore", check.nlev.gtr.1 = "ignore",
    check.nobs.vs.rankZ = "ignore", check.rankX = "stop.deficient")))
  offset <- if (is.null(model$offset)) rep(0, nrow(data)) else
    eval(str2lang(model$offset), data)
  terms <- design$reTrms
  start <- 0
  layout <- lapply(seq_along(terms$cnms), function(t) {
    k <- length(terms$cnms[[t]])
    at <- start + seq_len(k * (k + 1) / 2)
    start <<- max(at)
    list(group = sub("\\.\\d+$", "", names(terms$cnms)[t]), columns = terms$cnms[[t]], k = k,
         at = at, rows = (terms$Gp[t] + 1):terms$Gp[t + 1])
  })
  list(model = model, data = data, formula = right, y = response$y, m = response$m, X = design$X,
       Zt = terms$Zt, Lambdat = terms$Lambdat, Lind = terms$Lind, layout = layout, offset = offset,
       flist = terms$flist, n_theta = length(terms$theta), family = family_of(model),
       n_agq = if (is.null(model$n_agq)) 1 else model$n_agq,
       nodes = gauss.quad(if (is.null(model$n_agq)) 1 else max(model$n_agq, 1), "hermite"),
       expected = identical(model$information, "expected"))
}

# Links: log mu and log(1 - mu) for probabilities, mu and two derivatives otherwise ------------------
links <- list(
  logit = list(log1 = function(e) plogis(e, log.p = TRUE), log0 = function(e) plogis(-e, log.p = TRUE),
               density = function(e) dlogis(e, log = TRUE), ratio = function(e) -tanh(e / 2)),
  probit = list(log1 = function(e) pnorm(e, log.p = TRUE), log0 = function(e) pnorm(-e, log.p = TRUE),
                density = function(e) dnorm(e, log = TRUE), ratio = function(e) -e),
  cloglog = list(log1 = function(e) log(-expm1(-exp(e))), log0 = function(e) -exp(e),
                 density = function(e) e - exp(e), ratio = function(e) 1 - exp(e)),
  cauchit = list(log1 = function(e) pcauchy(e, log.p = TRUE), log0 = function(e) pcauchy(-e, log.p = TRUE),
                 density = function(e) dcauchy(e, log = TRUE), ratio = function(e) -2 * e / (1 + e^2)),
  log = list(log1 = function(e) e, log0 = function(e) log(-expm1(e)), density = function(e) e,
             ratio = function(e) rep(1, length(e))))

inverse_links <- list(
  log = function(e) list(exp(e), exp(e), exp(e)),
  sqrt = function(e) list(e^2, 2 * e, rep(2, length(e))),
  identity = function(e) list(e, rep(1, length(e)), rep(0, length(e))),
  inverse = function(e) list(1 / e, -1 / e^2, 2 / e^3))

# Families: log density l, score s, observed weight w and expected weight we in the predictor e;
# d: log dispersion (log size for the negative binomial).
family_of <- function(model) {
  if (model$family == "binomial") return(binomial_family(links[[model$link]]))
  inverse <- inverse_links[[model$link]]
  parts <- switch(model$family,
    poisson = list(
      l = function(y, mu, m, d) m * dpois(y, mu, log = TRUE),
      l1 = function(y, mu, m, d) m * (y / mu - 1), l2 = function(y, mu, m, d) -m * y / mu^2,
      information = function(mu, m, d) m / mu, variance = function(mu, d) mu),
    negative_binomial = list(
      l = function(y, mu, m, d) m * dnbinom(y, size = exp(d), mu = mu, log = TRUE),
      l1 = function(y, mu, m, d) m * (y / mu - (y + exp(d)) / (mu + exp(d))),
      l2 = function(y, mu, m, d) m * (-y / mu^2 + (y + exp(d)) / (mu + exp(d))^2),
      information = function(mu, m, d) m / (mu + mu^2 / exp(d)),
      variance = function(mu, d) mu + mu^2 / exp(d)),
    gamma = list(
      l = function(y, mu, m, d) dgamma(y, shape = m / exp(d), scale = mu * exp(d) / m, log = TRUE),
      l1 = function(y, mu, m, d) m / exp(d) * (y / mu^2 - 1 / mu),
      l2 = function(y, mu, m, d) m / exp(d) * (1 / mu^2 - 2 * y / mu^3),
      information = function(mu, m, d) m / exp(d) / mu^2, variance = function(mu, d) exp(d) * mu^2),
    inverse_gaussian = list(
      l = function(y, mu, m, d) 0.5 * log(m / exp(d) / (2 * pi * y^3)) -
        m / exp(d) * (y - mu)^2 / (2 * mu^2 * y),
      l1 = function(y, mu, m, d) m / exp(d) * (y - mu) / mu^3,
      l2 = function(y, mu, m, d) m / exp(d) * (2 / mu^3 - 3 * y / mu^4),
      information = function(mu, m, d) m / exp(d) / mu^3, variance = function(mu, d) exp(d) * mu^3),
    gaussian = list(
      l = function(y, mu, m, d) dnorm(y, mu, sqrt(exp(d) / m), log = TRUE),
      l1 = function(y, mu, m, d) m / exp(d) * (y - mu), l2 = function(y, mu, m, d) -m / exp(d),
      information = function(mu, m, d) m / exp(d), variance = function(mu, d) rep(exp(d), length(mu))))
  list(
    l = function(y, m, e, d) parts$l(y, inverse(e)[[1]], m, d),
    derivatives = function(y, m, e, d) {
      mu <- inverse(e)
      l1 <- parts$l1(y, mu[[1]], m, d)
      list(s = l1 * mu[[2]],
           w = -(parts$l2(y, mu[[1]], m, d) * mu[[2]]^2 + l1 * mu[[3]]),
           we = parts$information(mu[[1]], m, d) * mu[[2]]^2)
    },
    mean = function(e) inverse(e)[[1]], slope = function(e) inverse(e)[[2]],
    variance = parts$variance, l_at_mean = function(y, m, mu, d) parts$l(y, mu, m, d))
}

binomial_family <- function(link) {
  constant <- function(y, m) lgamma(m + 1) - lgamma(m * y + 1) - lgamma(m * (1 - y) + 1)
  times <- function(a, b) replace(a * b, rep(a == 0, length.out = length(b)), 0)
  list(
    l = function(y, m, e, d)
      m * (times(y, link$log1(e)) + times(1 - y, link$log0(e))) + constant(y, m),
    derivatives = function(y, m, e, d) {
      r1 <- exp(link$density(e) - link$log1(e))
      r0 <- exp(link$density(e) - link$log0(e))
      k <- link$ratio(e)
      list(s = m * (y * r1 - (1 - y) * r0),
           w = -m * (y * (k * r1 - r1^2) - (1 - y) * (k * r0 + r0^2)),
           we = m * r1 * r0)
    },
    mean = function(e) exp(link$log1(e)), slope = function(e) exp(link$density(e)),
    variance = function(mu, d) mu * (1 - mu),
    l_at_mean = function(y, m, mu, d) m * (times(y, log(mu)) + times(1 - y, log1p(-mu))) + constant(y, m))
}

# The definition ----------------------------------------------------------------------------------
# Dense where M is small, sparse elsewhere: (factor, solve, log determinant).
factor_of <- function(place, weight) {
  if (is.matrix(place$LZ)) {
    M <- tcrossprod(place$LZ * rep(weight, each = nrow(place$LZ)), place$LZ)
    diag(M) <- diag(M) + 1
    return(chol(M))
  }
  A <- forceSymmetric(tcrossprod(place$LZ %*% Diagonal(x = weight), place$LZ))
  if (is.null(place$symbolic)) Cholesky(A, LDL = FALSE, Imult = 1) else
    update(place$symbolic, A, mult = 1)
}

solve_by <- function(L, b) if (is.matrix(L)) backsolve(L, backsolve(L, b, transpose = TRUE)) else
  as.matrix(solve(L, b, system = "A"))

log_determinant <- function(L) 2 * if (is.matrix(L)) sum(log(diag(L))) else
  as.numeric(determinant(L)$modulus)

# The mode of u, and the factor of M there.
mode_of <- function(problem, beta, theta, delta, u = NULL) {
  place <- list()
  Lambdat <- problem$Lambdat
  Lambdat@x <- theta[problem$Lind]
  place$LZ <- Lambdat %*% problem$Zt
  if (length(place$LZ) < 3e5) place$LZ <- as.matrix(place$LZ)
  LZt <- t(place$LZ)
  fixed <- drop(problem$X %*% beta) + problem$offset
  if (is.null(u)) u <- rep(0, nrow(place$LZ))
  predictor <- function(u) fixed + as.vector(LZt %*% u)
  height <- function(u) {
    value <- 0.5 * sum(u^2) -
      sum(suppressWarnings(problem$family$l(problem$y, problem$m, predictor(u), delta)))
    if (is.finite(value)) value else Inf
  }
  h <- height(u)
  if (!is.finite(h)) { u[] <- 0; h <- height(u) }
  if (!is.finite(h)) return(NULL)
  for (iteration in 1:200) {
    e <- predictor(u)
    d <- problem$family$derivatives(problem$y, problem$m, e, delta)
    g <- as.vector(place$LZ %*% d$s) - u
    L <- factor_of(place, if (all(d$w > 0)) d$w else pmax(d$w, d$we))
    place$symbolic <- L
    step <- as.vector(solve_by(L, g))
    decrement <- sum(g * step)
    if (decrement < 1e-20 * (1 + abs(h))) break
    rate <- 1
    repeat {
      new <- height(u + rate * step)
      if (new <= h + 1e-13 * (1 + abs(h)) || rate < 1e-10) break
      rate <- rate / 2
    }
    if (rate < 1e-10) break
    u <- u + rate * step
    h <- new
    if (decrement < 1e-15 * (1 + abs(h)) && iteration > 3) {
      # One more step has been taken at the rounding of h; the factor must be that of this u.
      if (decrement < 1e-18 * (1 + abs(h))) break
    }
  }
  e <- predictor(u)
  d <- problem$family$derivatives(problem$y, problem$m, e, delta)
  L <- factor_of(place, if (problem$expected) d$we else d$w)
  list(u = u, h = h, e = e, L = L, LZ = place$LZ, Lambdat = Lambdat, fixed = fixed,
       logdet = log_determinant(L))
}

quadrature <- function(problem, at, delta) {
  k <- problem$layout[[1]]$k
  nodes <- problem$nodes
  grid <- as.matrix(expand.grid(rep(list(nodes$nodes), k)))
  log_weight <- rowSums(log(as.matrix(expand.grid(rep(list(nodes$weights), k)))))
  level <- as.integer(problem$flist[[1]])
  n <- length(level)
  # Rows of Z Lambda, each on its own level's k columns.
  Z <- vapply(seq_len(k), function(j) at$LZ[cbind((level - 1) * k + j, seq_len(n))], numeric(n))
  w <- problem$family$derivatives(problem$y, problem$m, at$e, delta)$w
  u <- matrix(at$u, ncol = k, byrow = TRUE)
  products <- rowsum(w * Z[, rep(seq_len(k), k)] * Z[, rep(seq_len(k), each = k)], level)
  C <- apply(products, 1, function(m) solve(chol(matrix(m, k) + diag(k))))
  C <- t(matrix(C, k * k))
  e <- matrix(at$fixed, n, nrow(grid))
  value <- matrix(rowSums(grid^2) + log_weight, nrow(u), nrow(grid), byrow = TRUE)
  for (j in seq_len(k)) {
    points <- u[, j] + sqrt(2) * tcrossprod(C[, j + k * (seq_len(k) - 1), drop = FALSE], grid)
    e <- e + Z[, j] * points[level, ]
    value <- value - 0.5 * points^2
  }
  l <- problem$family$l(problem$y, problem$m, e, delta)
  value <- value + rowsum(matrix(l, n), level)
  top <- do.call(pmax, as.data.frame(value))
  at$logdet - 2 * sum(top + log(rowSums(exp(value - top))) - k / 2 * log(pi))
}

definition <- function(problem, beta, theta, delta, u = NULL) {
  at <- mode_of(problem, beta, theta, delta, u)
  if (is.null(at)) return(1e10)
  if (problem$n_agq > 1) quadrature(problem, at, delta) else 2 * at$h + at$logdet
}

# n_agq = 0: beta and u are the joint mode at theta.
joint_mode <- function(problem, beta, theta) {
  for (iteration in 1:100) {
    at <- mode_of(problem, beta, theta, 0)
    d <- problem$family$derivatives(problem$y, problem$m, at$e, 0)
    cross <- as.matrix(at$LZ %*% (d$w * problem$X))
    S <- crossprod(problem$X, d$w * problem$X) - crossprod(cross, solve_by(at$L, cross))
    step <- solve(S, crossprod(problem$X, d$s))
    beta <- beta + drop(step)
    if (max(abs(step)) < 1e-12) break
  }
  beta
}

# The optimum -------------------------------------------------------------------------------------
has_delta <- function(model) model$family %in% c("gamma", "inverse_gaussian", "gaussian") ||
  (model$family == "negative_binomial" && is.null(model$size))

r_family <- function(model) switch(model$family, binomial = binomial(model$link),
  poisson = poisson(model$link), negative_binomial = nbinom2(model$link), gamma = Gamma(model$link),
  gaussian = gaussian(model$link))

by_glmmTMB <- function(problem) {
  model <- problem$model
  data <- problem$data
  data$.m <- problem$m
  data$.offset <- problem$offset
  data$.s <- problem$y * problem$m
  data$.f <- problem$m - data$.s
  formula <- problem$formula
  whole <- all(abs(data$.s - round(data$.s)) < 1e-9, abs(problem$m - round(problem$m)) < 1e-9)
  call <- list(data = data, family = r_family(model), se = FALSE,
               control = glmmTMBControl(optCtrl = list(iter.max = 2000, eval.max = 3000, rel.tol = 1e-13)))
  if (model$family == "binomial" && whole) {
    data$.s <- round(data$.s)
    data$.f <- round(data$.f)
    call$data <- data
    formula[[2]] <- quote(cbind(.s, .f))
  } else if (any(problem$m != 1)) call$weights <- problem$m
  if (!is.null(model$offset)) call$offset <- problem$offset
  call$formula <- formula
  if (!is.null(model$size)) {
    call$start <- list(betad = log(model$size))
    call$map <- list(betad = factor(NA))
  }
  if (model$link %in% c("identity", "inverse", "sqrt") || (model$family == "binomial" && model$link == "log")) {
    centre <- make.link(model$link)$linkfun(mean(problem$y))
    call$start <- c(call$start, list(
      beta = c(centre, rep(0, ncol(problem$X) - 1)), theta = rep(log(0.1 * abs(centre)), problem$n_theta)))
  }
  fit <- suppressWarnings(do.call(glmmTMB, call))
  f <- fit$obj
  f$env$tracepar <- FALSE
  x <- fit$fit$par
  value <- f$fn(x)
  H <- NULL
  for (round in 1:12) {
    g <- as.vector(f$gr(x))
    H <- jacobian(function(z) as.vector(f$gr(z)), x, method = "Richardson",
                  method.args = list(r = 2, eps = 1e-4))
    H <- (H + t(H)) / 2
    step <- tryCatch(solve(H, g), error = function(e) NULL)
    if (is.null(step) || any(eigen(H, TRUE, TRUE)$values <= 0)) break
    if (max(abs(g)) < 1e-8) break
    new <- f$fn(x - step)
    if (!is.finite(new) || new > value + 1e-9 * (1 + abs(value))) break
    x <- x - step
    value <- new
  }
  g <- as.vector(f$gr(x))
  list(fit = fit, x = x, f = f, value = 2 * f$fn(x), gradient = max(abs(g)), H = H,
       names = names(x), problem = problem)
}

# glmmTMB's parameters of one term -> the Cholesky factor of the covariance matrix, and back.
term_factor <- function(par, k) {
  L <- diag(k)
  if (k > 1) L[upper.tri(L)] <- par[-seq_len(k)]
  L <- t(L)
  if (k > 1) L[upper.tri(L)] <- 0
  exp(par[seq_len(k)]) * L / sqrt(rowSums(L^2))
}

term_par <- function(T) {
  sd <- sqrt(rowSums(T^2))
  L <- T / diag(T)
  c(log(sd), t(L)[upper.tri(L)])
}

# Where glmmTMB keeps the terms of `layout`.
tmb_order <- function(tmb) {
  theirs <- tmb$fit$modelInfo$reTrms$cond$cnms
  key <- function(group, columns) paste(sub("\\.\\d+$", "", group), paste(columns, collapse = ","))
  keys <- mapply(key, names(theirs), theirs)
  ours <- vapply(tmb$problem$layout, function(t) key(t$group, t$columns), "")
  match(keys, ours)
}

from_tmb <- function(tmb) {
  layout <- tmb$problem$layout
  theta <- numeric(tmb$problem$n_theta)
  par <- tmb$x[tmb$names == "theta"]
  for (t in tmb_order(tmb)) {
    k <- layout[[t]]$k
    mine <- seq_len(k * (k + 1) / 2)
    T <- term_factor(par[mine], k)
    par <- par[-mine]
    theta[layout[[t]]$at] <- T[lower.tri(T, TRUE)]
  }
  d <- tmb$x[tmb$names == "betad"]
  family <- tmb$problem$model$family
  list(beta = unname(tmb$x[tmb$names == "beta"]), theta = theta,
       delta = if (!length(d)) NULL else unname(if (family == "gamma") -d else d))
}

matrix_of <- function(problem, theta, t) {
  k <- problem$layout[[t]]$k
  T <- matrix(0, k, k)
  T[lower.tri(T, TRUE)] <- theta[problem$layout[[t]]$at]
  T
}

tmb_at <- function(tmb, beta, theta, delta) {
  par <- unlist(lapply(tmb_order(tmb), function(t) term_par(matrix_of(tmb$problem, theta, t))))
  x <- tmb$x
  x[tmb$names == "beta"] <- beta
  x[tmb$names == "theta"] <- par
  if (any(tmb$names == "betad"))
    x[tmb$names == "betad"] <- if (tmb$problem$model$family == "gamma") -delta else delta
  2 * tmb$f$fn(x)
}

# The optimum of the definition, by differences, from a start.
by_definition <- function(problem, start) {
  p <- ncol(problem$X)
  q <- problem$n_theta
  held <- problem$held
  unpack <- function(x) list(beta = x[seq_len(p)], theta = x[p + seq_len(q)],
                             delta = if (is.null(held)) x[-seq_len(p + q)] else held)
  last <- NULL
  keep <- TRUE  # while searching, each mode starts at the last one; differences start at one mode
  f <- function(x) {
    at <- unpack(x)
    delta <- if (length(at$delta)) at$delta else 0
    mode <- mode_of(problem, at$beta, at$theta, delta, last)
    if (is.null(mode)) return(1e10)
    if (keep) last <<- mode$u
    if (problem$n_agq > 1) quadrature(problem, mode, delta) else 2 * mode$h + mode$logdet
  }
  x <- c(start$beta, start$theta, if (is.null(held)) start$delta)
  scale <- pmax(abs(x), 0.1)
  g <- function(z) f(z * scale)
  z <- nlminb(x / scale, g, control = list(rel.tol = 1e-13, iter.max = 500, eval.max = 2000))$par
  x <- z * scale
  for (round in 1:6) {
    keep <- TRUE
    value <- f(x)
    keep <- FALSE
    gradient <- grad(f, x)
    H <- hessian(f, x)
    if (max(abs(gradient)) < 2e-7) break
    step <- solve(H, gradient)
    new <- f(x - step)
    if (new > value + 1e-9 * (1 + abs(value))) break
    x <- x - step
  }
  c(unpack(x), list(H = in_standard_errors(f, x, H), gradient = max(abs(gradient)), value = value))
}

# Second derivatives again, by differences of the fourth order with steps of a twentieth of a standard
# error: those of numDeriv, a share of every parameter, lose digits where the criterion is narrow.
in_standard_errors <- function(f, x, H, step = 0.05) {
  if (any(diag(H) <= 0)) return(H)
  size <- step * sqrt(2 / diag(H))
  n <- length(x)
  second <- function(i, j, h) {
    a <- replace(numeric(n), i, h * size[i])
    b <- replace(numeric(n), j, h * size[j])
    (f(x + a + b) - f(x + a - b) - f(x - a + b) + f(x - a - b)) / (4 * h^2 * size[i] * size[j])
  }
  for (i in seq_len(n)) for (j in seq_len(i))
    H[i, j] <- H[j, i] <- (4 * second(i, j, 0.5) - second(i, j, 1)) / 3
  H
}

# Expected information and quadrature begin at glmmTMB's optimum, what it cannot fit at a relative's.
start_for <- function(problem) {
  model <- problem$model
  relative <- problem
  change <- function(...) { relative$model <<- modifyList(model, list(...)) }
  rescale <- function(s) s
  if (model$family == "inverse_gaussian") {
    change(family = "gamma")
    rescale <- function(s) { s$delta <- s$delta - log(mean(problem$y)); s }
  }
  if (model$link == "cauchit") change(link = "logit")
  if (model$family %in% c("gamma", "inverse_gaussian")) relative$m <- rep(1, length(problem$m))
  rescale(from_tmb(by_glmmTMB(relative)))
}

in_glmmTMB <- function(problem) with(problem, {
  n_agq == 1 && !expected && model$family != "inverse_gaussian" && model$link != "cauchit" &&
    (model$family %in% c("binomial", "poisson", "negative_binomial") || all(m == 1))
})

# lme4's criterion at a point, constants made whole.
lme4_criterion <- function(problem) {
  model <- problem$model
  canonical <- (model$family == "binomial" && model$link == "logit") ||
    (model$family == "poisson" && model$link == "log")
  if (!(canonical || (problem$expected && model$family == "binomial"))) return(NULL)
  if (problem$n_agq > 1 && length(problem$layout[[1]]$columns) > 1) return(NULL)
  if (problem$n_agq == 0) return(NULL)
  if (model$family == "binomial" && any(abs(problem$m - round(problem$m)) > 1e-9))
    return(NULL)  # lme4 rounds weights and successes in its constants
  data <- problem$data
  data$.m <- problem$m
  data$.offset <- problem$offset
  f <- tryCatch(suppressWarnings(suppressMessages(glmer(
    problem$formula, data, r_family(model), weights = .m, offset = .offset, nAGQ = problem$n_agq,
    devFunOnly = TRUE, control = glmerControl(
      tolPwrss = 1e-13, check.conv.singular = "ignore", check.nobs.vs.nlev = "ignore",
      check.nobs.vs.nRE = "ignore", check.nobs.vs.rankZ = "ignore", nAGQ0initStep = FALSE)))),
    error = function(e) NULL)
  if (is.null(f)) return(NULL)
  saturated <- if (problem$n_agq > 1)
    -2 * sum(problem$family$l_at_mean(problem$y, problem$m, problem$y, 0)) else 0
  function(beta, theta) f(c(theta, beta)) + saturated
}

# What is stored ----------------------------------------------------------------------------------
digits <- function(x, n = 8) if (is.null(x)) NULL else signif(x, n)

variance_components <- function(problem, theta) lapply(seq_along(problem$layout), function(t) {
  term <- problem$layout[[t]]
  S <- tcrossprod(matrix_of(problem, theta, t))
  sd <- sqrt(diag(S))
  R <- S / outer(sd, sd)
  list(group = term$group, columns = I(term$columns), sd = I(digits(sd)),
       correlations = I(digits(R[lower.tri(R)])), theta = I(theta[term$at]))
})

random_effects <- function(problem, at) {
  b <- as.vector(crossprod(at$Lambdat, at$u))
  groups <- unique(vapply(problem$layout, function(t) t$group, ""))
  do.call(c, lapply(groups, function(group) {
    terms <- Filter(function(t) t$group == group, problem$layout)
    labels <- levels(problem$flist[[group]])
    columns <- unlist(lapply(terms, function(t) t$columns))
    lapply(unique(round(seq(1, length(labels), length.out = 4))), function(l) {
      rows <- unlist(lapply(terms, function(t) t$rows[(l - 1) * t$k + seq_len(t$k)]))
      B <- as.matrix(at$Lambdat[, rows, drop = FALSE])
      V <- crossprod(B, solve_by(at$L, B))
      list(group = group, level = labels[l], columns = I(columns), mode = I(digits(b[rows])),
           cond_var = digits(V))
    })
  }))
}

new_rows <- function(problem) {
  data <- problem$data
  rows <- unique(round(seq(2, nrow(data) - 1, length.out = 4)))
  fixed <- nobars(problem$formula)
  offset <- if (!is.null(problem$model$offset)) all.vars(str2lang(problem$model$offset))
  used <- setdiff(all.vars(problem$formula), ".y")
  new <- data[rows, unique(c(used, offset)), drop = FALSE]
  grouping <- names(problem$flist)
  for (name in setdiff(all.vars(fixed[[length(fixed)]]), ".y"))
    if (is.double(data[[name]])) new[[name]] <- signif(new[[name]] + 0.21 * sd(data[[name]]), 6)
  list(rows = rows, new = new)
}

# E and Var of a response whose predictor is normal, by quadrature (the mean of 1 / predictor does
# not exist).
mixture <- function(problem, centre, sd, delta, m) {
  z <- seq(-8.5, 8.5, length.out = 10001)  # the trapezoidal rule: right to 1e-10 up to sd 50
  w <- dnorm(z) / sum(dnorm(z))
  one <- function(i) {
    mu <- problem$family$mean(centre[i] + sd[i] * z)
    v <- problem$family$variance(mu, delta) / m[i]
    mean <- sum(w * mu)
    c(mean, sum(w * v) + sum(w * mu^2) - mean^2)
  }
  vapply(seq_along(centre), one, numeric(2))
}

deviance_residuals <- function(problem, mu, delta) {
  family <- switch(problem$model$family, binomial = binomial(), poisson = poisson(), gamma = Gamma(),
                   inverse_gaussian = inverse.gaussian(), gaussian = gaussian(),
                   negative_binomial = MASS::negative.binomial(exp(delta)))
  sign(problem$y - mu) * sqrt(pmax(family$dev.resids(problem$y, mu, problem$m), 0))
}

predictions <- function(problem, beta, theta, delta, at, V) {
  made <- new_rows(problem)
  fixed <- nobars(problem$formula)
  levels <- lapply(Filter(is.factor, problem$data), levels)
  frame <- made$new
  for (name in intersect(names(frame), names(levels)))
    frame[[name]] <- factor(frame[[name]], levels = levels[[name]])
  X <- model.matrix(delete.response(terms(fixed)), frame)
  stopifnot(identical(colnames(X), colnames(problem$X)))
  offset <- if (is.null(problem$model$offset)) 0 else eval(str2lang(problem$model$offset), frame)
  link <- drop(X %*% beta) + offset
  # Random part of the new rows: their own levels, slopes at the new values.
  Zt <- with_new_slopes(problem, frame)
  Lambdat <- at$Lambdat
  b <- crossprod(Lambdat, at$u)
  spread <- sqrt(as.vector(colSums((Lambdat %*% Zt)^2)))
  conditional <- link + as.vector(crossprod(Zt, b))
  moments <- mixture(problem, link, spread, delta, rep(1, nrow(frame)))
  list(rows = lapply(frame, function(x) I(if (is.factor(x)) as.character(x) else x)),
       link = I(digits(link)), response = I(digits(problem$family$mean(link))),
       se_link = if (is.null(V)) NULL else I(digits(sqrt(rowSums((X %*% V) * X)))),
       conditional_link = I(digits(conditional)),
       conditional_response = I(digits(problem$family$mean(conditional))),
       marginal_response = if (problem$model$link != "inverse") I(digits(moments[1, ])))
}

with_new_slopes <- function(problem, frame) {
  # All levels must occur so that the columns agree: the new rows are put below the data.
  columns <- intersect(names(frame), names(problem$data))
  both <- rbind(problem$data[columns], frame[columns])
  both$.y <- 0
  design <- suppressWarnings(lFormula(problem$formula, both, REML = FALSE, control = lmerControl(
    check.nobs.vs.nlev = "ignore", check.nobs.vs.nRE = "ignore", check.nlev.gtr.1 = "ignore",
    check.nobs.vs.rankZ = "ignore")))
  design$reTrms$Zt[, nrow(problem$data) + seq_len(nrow(frame)), drop = FALSE]
}

wald <- function(problem, beta, V) {
  assign <- attr(problem$X, "assign")
  labels <- attr(terms(nobars(problem$formula)), "term.labels")
  lapply(seq_along(labels), function(t) {
    at <- which(assign == t)
    statistic <- drop(beta[at] %*% solve(V[at, at], beta[at]))
    list(term = labels[t], columns = I(colnames(problem$X)[at]), chisq = digits(statistic), df = length(at),
         p = digits(pchisq(statistic, length(at), lower.tail = FALSE)))
  })
}

reference <- function(model) {
  started <- proc.time()[["elapsed"]]
  problem <- problem_of(model)
  if (!is.null(model$size)) problem$held <- log(model$size)
  p <- ncol(problem$X)
  tmb <- NULL
  if (problem$n_agq == 0) {
    start <- start_for(problem)
    f <- function(theta) {
      beta <- joint_mode(problem, start$beta, theta)
      definition(problem, beta, theta, 0)
    }
    theta <- optimize(f, start$theta * c(0.5, 2), tol = 1e-9)$minimum
    for (round in 1:3) theta <- theta - grad(f, theta) / drop(hessian(f, theta))
    best <- list(beta = joint_mode(problem, start$beta, theta), theta = theta, delta = NULL,
                 gradient = abs(grad(f, theta)))
    source <- "definition"
  } else if (in_glmmTMB(problem)) {
    tmb <- by_glmmTMB(problem)
    best <- c(from_tmb(tmb), list(H = 2 * tmb$H, gradient = 2 * tmb$gradient))
    source <- "glmmTMB"
    small <- any(vapply(seq_along(problem$layout), function(t) {
      T <- matrix_of(problem, best$theta, t)
      min(abs(diag(T)) / pmax(sqrt(rowSums(T^2)), 1e-2)) < 1e-2
    }, TRUE))
    if (small) {
      best <- by_definition(problem, best[c("beta", "theta", "delta")])
      source <- "definition, from glmmTMB's optimum on the boundary"
    }
  } else {
    best <- by_definition(problem, start_for(problem))
    source <- "definition"
  }
  beta <- signif(best$beta, 11)
  theta <- signif(best$theta, 11)
  theta[abs(theta) < 2e-5] <- 0
  for (t in seq_along(problem$layout)) {  # columns with a positive diagonal
    T <- matrix_of(problem, theta, t)
    T <- sweep(T, 2, ifelse(diag(T) < 0, -1, 1), "*")
    theta[problem$layout[[t]]$at] <- T[lower.tri(T, TRUE)]
  }
  estimated <- has_delta(model)
  dispersion <- if (estimated) signif(exp(best$delta), 11) else model$size
  delta <- if (is.null(dispersion)) 0 else log(dispersion)

  V <- joint <- NULL
  if (!is.null(best$H)) {
    H <- best$H / 2
    # Parameters in which the criterion is flat (a factor of zero) do not correlate with the others.
    joint <- if (source == "glmmTMB") solve(H) else {
      keep <- setdiff(seq_len(nrow(H)), p + which(theta == 0 & best$theta^2 < 1e-9 &
                                                    diag(H)[p + seq_along(theta)] < 1e-3))
      out <- matrix(NA, nrow(H), nrow(H))
      out[keep, keep] <- solve(H[keep, keep, drop = FALSE])
      out
    }
    V <- joint[seq_len(p), seq_len(p), drop = FALSE]
  }
  at_delta <- if (source == "glmmTMB") which(tmb$names == "betad") else p + length(theta) + 1
  at <- mode_of(replace(problem, "expected", FALSE), beta, theta, delta)
  value <- definition(problem, beta, theta, delta)
  lme4_at <- tryCatch(lme4_criterion(problem), error = function(e) NULL)
  points <- lapply(list(c(1, 0.5), c(0.8, 1), c(0.9, 1.3)), function(scale)
    list(beta = signif(scale[1] * beta, 11), theta = signif(scale[2] * theta, 11)))
  values <- vapply(points, function(x) definition(problem, x$beta, x$theta, delta), 0)
  apart <- function(f) {
    d <- max(abs(vapply(points, function(x) f(x$beta, x$theta), 0) - values))
    if (is.finite(d)) digits(d, 2)
  }
  se_tmb <- NULL
  agreement <- list(
    glmmTMB = if (!is.null(tmb)) list(
      optimum = digits(tmb$value - value, 2),
      points = tryCatch(apart(function(b, t) tmb_at(tmb, b, t, delta)),
                        error = function(e) NULL),
      gradient = digits(best$gradient, 2)),
    lme4 = if (!is.null(lme4_at)) list(optimum = digits(lme4_at(beta, theta) - value, 2),
                                       points = apart(lme4_at)))
  if (source != "glmmTMB") agreement$gradient <- digits(best$gradient, 2)

  mu <- problem$family$mean(at$e)
  slope <- problem$family$slope(at$e)
  first <- seq_len(min(5, length(mu)))
  unit <- if (estimated && model$family != "negative_binomial") 0 else delta
  pearson <- (problem$y - mu) * sqrt(problem$m) / sqrt(problem$family$variance(mu, unit))
  spread <- sqrt(as.vector(colSums(at$LZ^2)))
  moments <- mixture(problem, at$fixed[first], spread[first], delta, problem$m[first])
  npar <- p + length(theta) + estimated
  list(
    name = model$name, data = model$data, formula = model$formula, family = model$family,
    link = model$link, source = source, agreement = agreement,
    n = nrow(problem$X), npar = npar,
    minus2loglik = signif(value, 13), aic = signif(value + 2 * npar, 13),
    bic = signif(value + log(nrow(problem$X)) * npar, 13),
    fixef = list(names = I(colnames(problem$X)), values = I(beta),
                 se = if (!is.null(V)) I(digits(sqrt(diag(V))))),
    dispersion = dispersion, dispersion_estimated = estimated,
    se_log_dispersion = if (estimated && !is.null(joint)) digits(sqrt(joint[at_delta, at_delta])),
    terms = variance_components(problem, theta),
    criterion_at = Map(function(x, v) list(beta = I(x$beta), theta = I(x$theta), value = signif(v, 13)),
                       points, values),
    ranef = random_effects(problem, at),
    fitted = I(digits(mu[first])),
    deviance = digits(sum(deviance_residuals(problem, mu, delta)^2), 10),
    residuals = list(response = I(digits((problem$y - mu)[first])), pearson = I(digits(pearson[first])),
                     working = I(digits(((problem$y - mu) / slope)[first])),
                     deviance = I(digits(deviance_residuals(problem, mu, delta)[first]))),
    simulated = list(mean = I(digits(moments[1, ])), variance = I(digits(moments[2, ]))),
    predictions = predictions(problem, beta, theta, delta, at, V),
    wald = if (!is.null(V)) wald(problem, beta, V),
    seconds = round(proc.time()[["elapsed"]] - started, 1))
}

dir.create(file.path(here, "generalized_reference"), showWarnings = FALSE)
file_of <- function(model)
  file.path(here, "generalized_reference", paste0(model$name, ".json"))

chosen <- unlist(lapply(strsplit(wanted, ",")[[1]], function(pattern) grep(
  pattern, vapply(registry$models, function(m) m$name, ""))))
for (model in registry$models[unique(chosen)]) {
  if (only_new && file.exists(file_of(model))) next
  result <- tryCatch(reference(model), error = function(e) e)
  if (inherits(result, "error")) {
    cat(sprintf("%-26s FAILED: %s in %s\n", model$name, conditionMessage(result),
                paste(deparse(conditionCall(result)), collapse = " ")))
    next
  }
  write(toJSON(result, auto_unbox = TRUE, digits = NA, null = "null", na = "null", pretty = FALSE),
        file_of(model))
  a <- result$agreement
  show <- function(x) if (is.null(x)) "-" else sprintf("%.0e", x)
  cat(sprintf("%-26s %16.7f glmmTMB %s/%s g %s lme4 %s/%s  %s %5.1f s\n", model$name,
              result$minus2loglik, show(a$glmmTMB$optimum), show(a$glmmTMB$points),
              show(c(a$glmmTMB$gradient, a$gradient)[1]), show(a$lme4$optimum), show(a$lme4$points),
              result$source, result$seconds))
}
