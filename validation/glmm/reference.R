# Every model of models.json by glmmTMB, polished by Newton steps on its exact gradient to the
# optimum, with standard errors from differences of that gradient -> reference.json.gz.
# Run in this directory: Rscript reference.R [regular expression]
suppressMessages({library(glmmTMB); library(jsonlite)})
args <- commandArgs(TRUE)
models <- fromJSON("models.json", simplifyDataFrame = FALSE)
read <- function(name) {
  d <- read.csv(gzfile(file.path("data", paste0(name, ".csv.gz"))), stringsAsFactors = FALSE)
  for (n in names(d)) if (is.character(d[[n]])) d[[n]] <- factor(d[[n]], levels = sort(unique(d[[n]]), method = "radix"))
  d
}
families <- list(binomial = function(l) binomial(l), poisson = function(l) poisson(l),
  gamma = function(l) Gamma(l), negative_binomial = function(l) nbinom2(l), gaussian = function(l) gaussian(l))
jac <- function(f, x) {
  H <- matrix(0, length(x), length(x))
  for (i in seq_along(x)) {
    h <- 1e-4 * max(1, abs(x[i])); e <- replace(x * 0, i, h)
    H[, i] <- (8 * (f(x + e) - f(x - e)) - (f(x + 2 * e) - f(x - 2 * e))) / (12 * h)
  }
  (H + t(H)) / 2
}
found <- list()
for (m in models) {
  if (length(args) && !grepl(args[1], m$name)) next
  d <- read(m$data)
  text <- if (is.null(m$r_formula)) m$formula else m$r_formula
  started <- Sys.time()
  f <- suppressWarnings(glmmTMB(as.formula(text), d, family = families[[m$family]](m$link),
    control = glmmTMBControl(optCtrl = list(iter.max = 2000, eval.max = 2000))))
  obj <- f$obj; par <- f$fit$par
  for (i in 1:6) {
    g <- as.vector(obj$gr(par)); H <- jac(function(x) as.vector(obj$gr(x)), par)
    if (max(abs(g)) < 1e-8 || any(eigen(H, TRUE, TRUE)$values <= 0)) break
    step <- solve(H, g); new <- par - step
    if (!is.finite(obj$fn(new)) || obj$fn(new) > obj$fn(par) + 1e-9) break
    par <- new
  }
  H <- jac(function(x) as.vector(obj$gr(x)), par)
  value <- obj$fn(par); last <- obj$env$last.par
  V <- solve(H)
  isb <- names(par) == "beta"; ist <- names(par) == "theta"; isd <- names(par) %in% c("betad", "betadisp")
  D <- obj$env$data
  eta <- as.vector(D$X %*% par[isb] + D$Z %*% last[names(last) == "b"] + D$offset)
  fam <- families[[m$family]](m$link)
  mu <- fam$linkinv(eta)
  inner <- obj$env$spHess(last, random = TRUE)
  cv <- diag(solve(as.matrix(inner)))
  found[[m$name]] <- list(minus2loglik = 2 * value, gradient = max(abs(obj$gr(par))),
    names = colnames(D$X), beta = par[isb], se = sqrt(diag(V))[isb], theta = par[ist],
    se_theta = sqrt(diag(V))[ist], disp = if (any(isd)) par[isd] else NULL,
    groups = names(f$modelInfo$reStruc$condReStruc), fitted = mu[1:6], eta = eta[1:6],
    b = last[names(last) == "b"][1:8], condvar = cv[1:8],
    seconds = as.numeric(Sys.time() - started, units = "secs"))
  cat(m$name, format(2 * value, digits = 12), "|g|", format(max(abs(obj$gr(par)))), "\n")
}
out <- gzfile("reference.json.gz", "w")
write(toJSON(list(glmmTMB = as.character(packageVersion("glmmTMB")), models = found), digits = 12, auto_unbox = TRUE), out)
close(out)
